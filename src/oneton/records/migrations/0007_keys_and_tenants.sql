-- migrate:up

-- addresses: from where a key may be used; empty is from everywhere.
alter table api_key
  add expires_at timestamptz,
  add addresses cidr[] not null default '{}';

-- suspended_at, deleted_at: since when all calls are refused. most_requests_a_day: null is without
-- end.
alter table tenant
  add suspended_at timestamptz,
  add deleted_at timestamptz,
  add most_requests_a_day bigint check (most_requests_a_day >= 0);
grant update (suspended_at, most_requests_a_day) on tenant to oneton_app;

-- A key comes with what is to be known of its tenant at every call.
drop function oneton_key, oneton_key_by_secret;
create function oneton_key(of_key uuid) returns table (
  key_id uuid, tenant_id uuid, label text, secret_sha256 bytea, permissions text[],
  created_at timestamptz, revoked_at timestamptz, sandbox boolean, expires_at timestamptz,
  addresses cidr[], suspended boolean, most_requests_a_day bigint)
language sql stable security definer set search_path = public
begin atomic
  select k.key_id, k.tenant_id, k.label, k.secret_sha256, k.permissions, k.created_at, k.revoked_at,
    k.sandbox, k.expires_at, k.addresses,
    t.suspended_at is not null or t.deleted_at is not null, t.most_requests_a_day
  from api_key k join tenant t on t.tenant_id = k.tenant_id
  where k.key_id = of_key;
end;
create function oneton_key_by_secret(of_secret bytea) returns table (
  key_id uuid, tenant_id uuid, label text, secret_sha256 bytea, permissions text[],
  created_at timestamptz, revoked_at timestamptz, sandbox boolean, expires_at timestamptz,
  addresses cidr[], suspended boolean, most_requests_a_day bigint)
language sql stable security definer set search_path = public
begin atomic
  select k.key_id, k.tenant_id, k.label, k.secret_sha256, k.permissions, k.created_at, k.revoked_at,
    k.sandbox, k.expires_at, k.addresses,
    t.suspended_at is not null or t.deleted_at is not null, t.most_requests_a_day
  from api_key k join tenant t on t.tenant_id = k.tenant_id
  where k.secret_sha256 = of_secret;
end;
revoke execute on function oneton_key, oneton_key_by_secret from public;
grant execute on function oneton_key, oneton_key_by_secret to oneton_app;

-- Written anew, for their rows have grown.
create or replace function oneton_tenants() returns setof tenant
language sql stable security definer set search_path = public
begin atomic
  select * from tenant order by created_at, tenant_id;
end;
create or replace function oneton_tenant_by_public_id(of_id text) returns setof tenant
language sql stable security definer set search_path = public
begin atomic
  select * from tenant where public_id = of_id;
end;

-- What is told of a suspended tenant waits until it is resumed.
create or replace function oneton_outbox_due(at_most integer) returns table (
  delivery_id uuid, tenant_id uuid)
language sql stable security definer set search_path = public
begin atomic
  select o.delivery_id, o.tenant_id from outbox o
  join tenant t on t.tenant_id = o.tenant_id
  where o.next_at <= now() and t.suspended_at is null and t.deleted_at is null
  order by row_number() over (partition by o.endpoint_id order by o.next_at), o.next_at
  limit at_most;
end;

-- How many face records a tenant may have, and has; only of those that have a limit. The number is
-- moved by the transaction that adds or removes them, whatever the gallery.
create table face_quota (
  tenant_id uuid primary key references tenant,
  most bigint not null check (most >= 0),
  faces bigint not null
);
alter table face_quota enable row level security;
create policy own on face_quota using (tenant_id = (select oneton_tenant()));
grant select, update, delete on face_quota to oneton_app;

-- oneton.beyond_quota: 'on' in a transaction whose faces are counted and never refused, as those
-- that a rollback of a reindex brings back.
create function oneton_count_faces() returns trigger
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  moved record;
  now_at face_quota;
begin
  if tg_op = 'INSERT' then
    for moved in select tenant_id, count(*) as faces from added
                 where face_id is not null group by tenant_id order by tenant_id loop
      -- Whoever sets a limit holds this lock while it counts.
      perform from tenant where tenant_id = moved.tenant_id for key share;
      update face_quota set faces = faces + moved.faces where tenant_id = moved.tenant_id
        returning * into now_at;
      if found and now_at.faces > now_at.most
         and coalesce(current_setting('oneton.beyond_quota', true), '') <> 'on' then
        raise exception 'the quota of % face records is used up', now_at.most
          using errcode = 'ON001';
      end if;
    end loop;
  elsif tg_op = 'DELETE' then
    for moved in select tenant_id, count(*) as faces from removed
                 where face_id is not null group by tenant_id order by tenant_id loop
      perform from tenant where tenant_id = moved.tenant_id for key share;
      update face_quota set faces = faces - moved.faces where tenant_id = moved.tenant_id;
    end loop;
  else
    -- Purged, or removed by the cut-over of a reindex.
    for moved in select tenant_id, sum(faces) as faces from (
                   select tenant_id, 1 as faces from added where face_id is not null
                   union all
                   select tenant_id, -1 from removed where face_id is not null) as each
                 group by tenant_id having sum(faces) <> 0 order by tenant_id loop
      perform from tenant where tenant_id = moved.tenant_id for key share;
      update face_quota set faces = faces + moved.faces where tenant_id = moved.tenant_id;
    end loop;
  end if;
  return null;
end
$$;
create trigger count_added after insert on face
  referencing new table as added for each statement execute function oneton_count_faces();
create trigger count_removed after delete on face
  referencing old table as removed for each statement execute function oneton_count_faces();
create trigger count_changed after update on face
  referencing old table as removed new table as added
  for each statement execute function oneton_count_faces();

-- Sets, or with null ends, a limit; it waits for enrolments under way, and they for it, so that the
-- count is exact. A limit below what is there refuses new faces only.
create function oneton_limit_faces(of_tenant uuid, at_most bigint) returns void
language plpgsql security definer set search_path = public, pg_temp as $$
begin
  perform from tenant where tenant_id = of_tenant for update;
  if at_most is null then
    delete from face_quota where tenant_id = of_tenant;
  else
    insert into face_quota (tenant_id, most, faces) values (of_tenant, at_most, (
      select count(*) from face f join gallery g on g.gallery_no = f.gallery_no
      where g.tenant_id = of_tenant and f.face_id is not null))
    on conflict (tenant_id) do update set most = excluded.most;
  end if;
end
$$;
revoke execute on function oneton_limit_faces from public;
grant execute on function oneton_limit_faces to oneton_app;

-- Calls by day (UTC), dialect and kind; written in batches.
create table usage_day (
  tenant_id uuid not null references tenant,
  day date not null,
  dialect text not null,
  kind text not null,
  calls bigint not null,
  primary key (tenant_id, day, dialect, kind)
);
alter table usage_day enable row level security;
create policy own on usage_day using (tenant_id = (select oneton_tenant()));
grant select on usage_day to oneton_app;

-- Adds what a process has counted, and says how many calls each tenant has made on that day, on
-- all replicas. One that is gone is left out.
create function oneton_count_usage(
  tenants uuid[], days date[], dialects text[], kinds text[], calls bigint[])
returns void
language plpgsql security definer set search_path = public, pg_temp as $$
begin
  insert into usage_day as u (tenant_id, day, dialect, kind, calls)
  select c.tenant, c.day, c.dialect, c.kind, c.calls
  from unnest(tenants, days, dialects, kinds, calls) as c (tenant, day, dialect, kind, calls)
  where exists (select from tenant t where t.tenant_id = c.tenant)
  order by c.tenant, c.day, c.dialect, c.kind
  on conflict (tenant_id, day, dialect, kind) do update set calls = u.calls + excluded.calls;
end
$$;
create function oneton_calls_on(tenants uuid[], of_day date)
returns table (tenant_id uuid, calls bigint)
language sql stable security definer set search_path = public
begin atomic
  select u.tenant_id, sum(u.calls)::bigint from usage_day u
  where u.tenant_id = any (tenants) and u.day = of_day group by u.tenant_id;
end;
revoke execute on function oneton_count_usage, oneton_calls_on from public;
grant execute on function oneton_count_usage, oneton_calls_on to oneton_app;

-- Tenants that were deleted, or are being: what of them is gone, table by table. It outlives the
-- tenant, and holds nothing of it but its id, by which what comes late is known.
create table tenant_deletion (
  former_id uuid primary key,
  asked_by text not null,
  asked_at timestamptz not null default now(),
  ended_at timestamptz,
  rows jsonb not null default '{}',
  objects jsonb not null default '{}'
);
grant select, update (objects) on tenant_deletion to oneton_app;

-- A template's tenant is its face's, so it needs no reference to the tenant, which would read all
-- tenants' templates when one tenant goes.
alter table template drop constraint template_tenant_id_fkey;
create index face_by_tenant on face (tenant_id);

-- Every table with rows of tenants, those that refer to others first; of the catalogue, so that a
-- new one is never forgotten.
create function oneton_tenant_tables() returns table (name text, depth integer)
language sql stable set search_path = public, pg_temp
begin atomic
  with recursive ours as (
    select c.oid from pg_class c join pg_attribute a on a.attrelid = c.oid
    where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p')
      and not c.relispartition and a.attname = 'tenant_id' and not a.attisdropped),
  hung (oid, depth) as (
    select o.oid, 0 from ours o
    union
    select k.conrelid, h.depth + 1 from hung h
    join pg_constraint k on k.confrelid = h.oid and k.contype = 'f' and k.conrelid <> k.confrelid
    where k.conrelid in (select o.oid from ours o) and h.depth < 64)
  select h.oid::regclass::text, max(h.depth) from hung h group by h.oid
  order by (h.oid = 'tenant'::regclass), max(h.depth) desc, 1;
end;

-- Where the row of a tenant is kept to the last: without the job nobody would go on.
create function oneton_add_counts(counts jsonb, more jsonb) returns jsonb
language sql immutable
begin atomic
  select coalesce(jsonb_object_agg(name, n), '{}') from (
    select key as name, sum(value::bigint) as n
    from (select * from jsonb_each_text(counts) union all select * from jsonb_each_text(more)) as e
    group by key having sum(value::bigint) > 0) as s;
end;

-- A tenant is no more for anybody from this commit on: its keys are refused, its galleries hidden,
-- which enrolments under way find under their lock. A job erases what it has. Null: no such tenant.
-- The lock lets enrolments refer to the tenant, or whoever holds a gallery would wait here and be
-- waited for. Whoever adds a gallery holds the tenant for share.
create function oneton_delete_tenant(of_tenant uuid, new_job uuid, who text) returns uuid
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  asked uuid;
  each record;
begin
  perform from tenant where tenant_id = of_tenant for no key update;
  if not found then
    return null;
  end if;
  select j.job_id into asked from job j
    where j.tenant_id = of_tenant and j.kind = 'delete_tenant' and j.ended_at is null;
  if found then
    return asked;
  end if;
  update tenant set deleted_at = coalesce(deleted_at, now()) where tenant_id = of_tenant;
  insert into tenant_deletion (former_id, asked_by) values (of_tenant, who)
    on conflict (former_id) do nothing;
  for each in select gallery_no, gallery_id from gallery where tenant_id = of_tenant
              order by gallery_no for no key update loop
    update gallery set deleted_at = coalesce(deleted_at, now()), second_pack_no = null, second = null
      where gallery_no = each.gallery_no;
    perform pg_notify('oneton_head', of_tenant || ' ' || each.gallery_id);
  end loop;
  update reindex_gallery set state = 'cancelled', cleaned = true,
      ended_at = coalesce(ended_at, now()), why = 'the tenant is being deleted'
    where tenant_id = of_tenant and (ended_at is null or not cleaned);
  update job set state = 'failed', ended_at = now(), why = 'the tenant is being deleted'
    where tenant_id = of_tenant and ended_at is null;
  insert into job (job_id, tenant_id, kind, subject)
    values (new_job, of_tenant, 'delete_tenant', of_tenant::text);
  return new_job;
end
$$;

-- One step: so many rows of one table at most, with what hangs on them; what was deleted, by table,
-- is noted in the same transaction. Null when only what `oneton_end_tenant` deletes is left.
create function oneton_erase_tenant(of_tenant uuid, at_most integer) returns jsonb
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  gone jsonb := '{}';
  n bigint;
  ours bigint[];
  of_gallery bigint;
  each record;
begin
  perform from tenant where tenant_id = of_tenant and deleted_at is not null for share;
  if not found then
    return null;
  end if;
  select g.gallery_no into of_gallery from gallery g
    where g.tenant_id = of_tenant and exists (select from face f where f.gallery_no = g.gallery_no)
    order by g.gallery_no limit 1;
  if found then
    -- By gallery, for which there is an index; other tenants' faces are not read through.
    ours := array(select f.face_no from face f where f.gallery_no = of_gallery
                  order by f.added_at_head limit at_most for update);
    for each in select k.conrelid::regclass as name, a.attname as key from pg_constraint k
                join pg_attribute a on a.attrelid = k.conrelid and a.attnum = k.conkey[1]
                where k.confrelid = 'face'::regclass and k.contype = 'f'
                  and array_length(k.conkey, 1) = 1 loop
      execute format('delete from %s where %I = any ($1)', each.name, each.key) using ours;
      get diagnostics n = row_count;
      gone := oneton_add_counts(gone, jsonb_build_object(each.name::text, n));
    end loop;
    delete from face f where f.face_no = any (ours);
    get diagnostics n = row_count;
    gone := oneton_add_counts(gone, jsonb_build_object('face', n));
  else
    -- No face is left, so no template is, through which there is no way by tenant.
    delete from rate_window where key_id in (select k.key_id from api_key k
                                             where k.tenant_id = of_tenant);
    for each in select t.name from oneton_tenant_tables() t
                where t.name not in ('tenant', 'job', 'face', 'template') loop
      -- By their places, which no plan reads the whole table for.
      execute format('delete from %s where tenant_id = $1 and ctid = any (array(
                        select ctid from %s where tenant_id = $1 limit $2))',
                     each.name, each.name)
        using of_tenant, at_most;
      get diagnostics n = row_count;
      if n > 0 then
        gone := jsonb_build_object(each.name, n);
        exit;
      end if;
    end loop;
  end if;
  if gone = '{}' then
    return null;
  end if;
  update tenant_deletion d set rows = oneton_add_counts(d.rows, gone)
    where d.former_id = of_tenant;
  return gone;
end
$$;

create function oneton_tenant_rows(of_tenant uuid) returns table (name text, rows bigint)
language plpgsql stable security definer set search_path = public, pg_temp as $$
declare
  each record;
begin
  for each in select t.name as of_name from oneton_tenant_tables() t loop
    if each.of_name = 'template' then
      -- By their faces, for which there is an index.
      return query select 'template', count(*) from face f join template t using (face_no)
        where f.tenant_id = of_tenant;
      continue;
    end if;
    return query execute format('select %L::text, count(*) from %s where tenant_id = $1',
                                each.of_name, each.of_name) using of_tenant;
  end loop;
end
$$;

-- The last rows, the tenant's own with them, and one event that says how much there was. Whatever
-- a call under way still wrote is found here, or refused by its reference to the tenant.
create function oneton_end_tenant(of_tenant uuid) returns boolean
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  gone jsonb := '{}';
  n bigint;
  each record;
begin
  perform from tenant where tenant_id = of_tenant and deleted_at is not null for update;
  if not found then
    return false;
  end if;
  -- Templates went with their faces; a face that came late has some, and is not deleted here.
  for each in select t.name from oneton_tenant_tables() t where t.name <> 'template' loop
    execute format('delete from %s where tenant_id = $1', each.name) using of_tenant;
    get diagnostics n = row_count;
    gone := oneton_add_counts(gone, jsonb_build_object(each.name, n));
  end loop;
  for each in select r.name, r.rows from oneton_tenant_rows(of_tenant) r where r.rows > 0 loop
    raise exception '% rows of % are left', each.rows, each.name;
  end loop;
  update tenant_deletion d set ended_at = now(), rows = oneton_add_counts(d.rows, gone)
    where d.former_id = of_tenant;
  insert into audit_event (tenant_id, actor, action, details)
    select null, d.asked_by, 'tenant deleted',
      jsonb_build_object('tenant', d.former_id, 'rows', d.rows, 'objects', d.objects)
    from tenant_deletion d where d.former_id = of_tenant;
  return true;
end
$$;

-- Events that were on their way when their tenant went.
create function oneton_forget_tenants() returns bigint
language sql security definer set search_path = public
begin atomic
  with late as (
    delete from audit_event where tenant_id in (
      select former_id from tenant_deletion where ended_at is not null)
    returning 1)
  select count(*) from late;
end;

-- A gallery is no more, too, when its tenant was deleted here.
create or replace function oneton_galleries_gone(tenants uuid[], gallery_nos bigint[])
returns setof bigint
language sql stable security definer set search_path = public
begin atomic
  select kept.gallery_no from unnest(tenants, gallery_nos) as kept (tenant_id, gallery_no)
  where (exists (select from tenant t where t.tenant_id = kept.tenant_id)
         or exists (select from tenant_deletion d where d.former_id = kept.tenant_id))
    and not exists (select from gallery g where g.gallery_no = kept.gallery_no
                    and g.tenant_id = kept.tenant_id and g.deleted_at is null);
end;

revoke execute on function oneton_tenant_tables, oneton_add_counts, oneton_delete_tenant,
  oneton_erase_tenant, oneton_tenant_rows, oneton_end_tenant, oneton_forget_tenants,
  oneton_count_faces from public;
grant execute on function oneton_tenant_tables, oneton_delete_tenant, oneton_erase_tenant,
  oneton_tenant_rows, oneton_end_tenant, oneton_forget_tenants to oneton_app;

-- migrate:down
create or replace function oneton_galleries_gone(tenants uuid[], gallery_nos bigint[])
returns setof bigint
language sql stable security definer set search_path = public
begin atomic
  select kept.gallery_no from unnest(tenants, gallery_nos) as kept (tenant_id, gallery_no)
  where exists (select from tenant t where t.tenant_id = kept.tenant_id)
    and not exists (select from gallery g where g.gallery_no = kept.gallery_no
                    and g.tenant_id = kept.tenant_id and g.deleted_at is null);
end;
create or replace function oneton_outbox_due(at_most integer) returns table (
  delivery_id uuid, tenant_id uuid)
language sql stable security definer set search_path = public
begin atomic
  select o.delivery_id, o.tenant_id from outbox o
  where o.next_at <= now()
  order by row_number() over (partition by o.endpoint_id order by o.next_at), o.next_at
  limit at_most;
end;
drop index face_by_tenant;
alter table template add foreign key (tenant_id) references tenant;
drop function oneton_forget_tenants, oneton_end_tenant, oneton_tenant_rows, oneton_erase_tenant,
  oneton_delete_tenant, oneton_add_counts, oneton_tenant_tables, oneton_calls_on,
  oneton_count_usage, oneton_limit_faces;
drop trigger count_changed on face;
drop trigger count_removed on face;
drop trigger count_added on face;
drop function oneton_count_faces;
drop table tenant_deletion, usage_day, face_quota;
drop function oneton_key, oneton_key_by_secret, oneton_tenants, oneton_tenant_by_public_id;
alter table tenant drop suspended_at, drop deleted_at, drop most_requests_a_day;
alter table api_key drop expires_at, drop addresses;
create function oneton_key(of_key uuid) returns setof api_key
language sql stable security definer set search_path = public
begin atomic
  select * from api_key where key_id = of_key;
end;
create function oneton_key_by_secret(of_secret bytea) returns setof api_key
language sql stable security definer set search_path = public
begin atomic
  select * from api_key where secret_sha256 = of_secret;
end;
create function oneton_tenants() returns setof tenant
language sql stable security definer set search_path = public
begin atomic
  select * from tenant order by created_at, tenant_id;
end;
create function oneton_tenant_by_public_id(of_id text) returns setof tenant
language sql stable security definer set search_path = public
begin atomic
  select * from tenant where public_id = of_id;
end;
revoke execute on function oneton_key, oneton_key_by_secret, oneton_tenants,
  oneton_tenant_by_public_id from public;
grant execute on function oneton_key, oneton_key_by_secret, oneton_tenants,
  oneton_tenant_by_public_id to oneton_app;
