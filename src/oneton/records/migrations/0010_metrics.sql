-- migrate:up

-- What `/metrics` shows of all tenants together: counts and ages, no id and no name. Every part is
-- answered from an index, or from a table with a row a gallery at most.
create function oneton_figures() returns table (
  what text, kind text, state text, value double precision)
language sql stable security definer set search_path = public
begin atomic
  select 'tenants', '', '', count(*)::double precision from tenant
  union all
  select 'galleries', g.kind, '', count(*) from gallery g where g.deleted_at is null group by g.kind
  union all
  -- Postgres's estimate, for counting millions takes seconds; -1 is never analysed.
  select 'faces', '', '', greatest(c.reltuples, 0) from pg_catalog.pg_class c
  where c.oid = 'face'::pg_catalog.regclass
  union all
  select 'jobs', j.kind, j.state, count(*) from job j where j.state in ('queued', 'running')
  group by j.kind, j.state
  union all
  select 'queue', q.entrypoint, q.status::text, count(*) from oneton_pgqueuer q
  where q.status in ('queued', 'picked') group by q.entrypoint, q.status
  union all
  select 'outbox', '', 'due', count(*) from outbox o where o.next_at <= now()
  union all
  select 'outbox', '', 'later', count(*) from outbox o where o.next_at > now()
  union all
  select 'outbox_oldest_s', '', '', coalesce(extract(epoch from now() - min(o.next_at)), 0)
  from outbox o where o.next_at <= now()
  union all
  select 'erase_oldest_s', '', '', coalesce(extract(epoch from now() - min(p.due_at)), 0)
  from picture p where p.due_at <= now();
end;

-- Heads of the galleries with the most changes; the last row, without a number, is the sum of the
-- others.
create function oneton_heads(at_most integer) returns table (gallery_no bigint, head bigint)
language sql stable security definer set search_path = public
begin atomic
  with ranked as (
    select g.gallery_no, g.head, row_number() over (order by g.head desc, g.gallery_no) as place
    from gallery g where g.deleted_at is null)
  (select r.gallery_no, r.head from ranked r where r.place <= at_most order by r.place)
  union all
  select null::bigint, sum(r.head)::bigint from ranked r where r.place > at_most
  having count(*) > 0;
end;

revoke execute on function oneton_figures, oneton_heads from public;
grant execute on function oneton_figures, oneton_heads to oneton_app;

-- migrate:down
drop function oneton_heads, oneton_figures;
