-- migrate:up

-- Each tenant's data keys, wrapped by the master key that only processes know. One is in force;
-- a retired one still opens what it sealed, until everything is sealed anew and it is destroyed. A
-- tenant whose keys are all destroyed is closed for good.
create table tenant_key (
  tenant_id uuid not null references tenant on delete cascade,
  key_no integer not null check (key_no between 1 and 16777215),
  wrapped bytea,
  created_at timestamptz not null default now(),
  retired_at timestamptz,
  destroyed_at timestamptz,
  primary key (tenant_id, key_no),
  check ((wrapped is null) = (destroyed_at is not null)),
  check (destroyed_at is null or retired_at is not null)
);
create unique index tenant_key_in_force on tenant_key (tenant_id) where retired_at is null;

-- Seals everything of a tenant with a key. reached: where the phase is, in words of its own.
create table encryption_run (
  run_id uuid primary key,
  tenant_id uuid not null references tenant on delete cascade,
  key_no integer not null,
  phase text not null default 'templates'
    check (phase in ('templates', 'objects', 'copies', 'check', 'done')),
  reached text not null default '',
  templates bigint not null default 0,
  objects bigint not null default 0,
  copies bigint not null default 0,
  unreadable bigint not null default 0,
  why text not null default '',
  started_by text not null,
  started_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  ended_at timestamptz
);
create unique index encryption_run_open on encryption_run (tenant_id) where ended_at is null;
create index encryption_run_by_tenant on encryption_run (tenant_id, started_at desc);

alter table tenant_key enable row level security;
alter table encryption_run enable row level security;
create policy own on tenant_key using (tenant_id = (select oneton_tenant()));
create policy own on encryption_run using (tenant_id = (select oneton_tenant()));
grant select, insert on tenant_key to oneton_app;
grant update (wrapped, retired_at, destroyed_at) on tenant_key to oneton_app;
grant select, insert, update on encryption_run to oneton_app;
grant update (embedding) on template to oneton_app;

-- The key in force, which stays in force until the transaction ends: whoever writes templates asks
-- here, and whoever retires a key waits for them. Each statement sees what was committed before it.
create function oneton_key_in_force(of_tenant uuid) returns setof tenant_key
language plpgsql as $$
begin
  perform pg_advisory_xact_lock_shared(7316009, hashtext(of_tenant::text));
  return query select * from tenant_key where tenant_id = of_tenant and retired_at is null;
end
$$;

-- Across tenants: whether there are keys at all, and whether the master key opens them.
create function oneton_wrapped_keys(at_most integer) returns setof tenant_key
language sql stable security definer set search_path = public
begin atomic
  select * from tenant_key where destroyed_at is null
  order by created_at desc, tenant_id limit at_most;
end;

create function oneton_encryption_runs() returns table (tenant_id uuid, run_id uuid)
language sql stable security definer set search_path = public
begin atomic
  select r.tenant_id, r.run_id from encryption_run r where r.ended_at is null
  order by r.started_at;
end;

-- With those that were deleted and are not empty yet, which no policy shows.
create function oneton_galleries_to_seal(of_tenant uuid) returns table (gallery_no bigint, head bigint)
language sql stable security definer set search_path = public
begin atomic
  select g.gallery_no, g.head from gallery g where g.tenant_id = of_tenant order by g.gallery_no;
end;

revoke execute on function oneton_wrapped_keys, oneton_encryption_runs, oneton_galleries_to_seal
  from public;
grant execute on function oneton_wrapped_keys, oneton_encryption_runs, oneton_galleries_to_seal
  to oneton_app;

-- Galleries of a tenant whose keys were destroyed are as good as deleted.
create or replace function oneton_galleries_gone(tenants uuid[], gallery_nos bigint[])
returns setof bigint
language sql stable security definer set search_path = public
begin atomic
  select kept.gallery_no from unnest(tenants, gallery_nos) as kept (tenant_id, gallery_no)
  where (exists (select from tenant t where t.tenant_id = kept.tenant_id)
         or exists (select from tenant_deletion d where d.former_id = kept.tenant_id))
    and (
      not exists (select from gallery g where g.gallery_no = kept.gallery_no
                  and g.tenant_id = kept.tenant_id and g.deleted_at is null)
      or (exists (select from tenant_key k where k.tenant_id = kept.tenant_id)
          and not exists (select from tenant_key k where k.tenant_id = kept.tenant_id
                          and k.destroyed_at is null)));
end;

-- Written anew: templates may be sealed, or some of them, so that their lengths differ. sizes: in
-- bytes, one each; null where all are alike.
drop function oneton_changes;
create function oneton_changes(
  of_tenant uuid, of_gallery bigint, of_pack bigint, since bigint, until bigint, at_most bigint)
returns table (
  head bigint, added bigint[], templates bytea, removed bigint[], sizes integer[])
language plpgsql as $$
begin
  perform set_config('oneton.tenant', of_tenant::text, true);
  return query
    with found as (
      select f.face_no, f.added_at_head, t.embedding
      from face f join template t using (face_no)
      where f.gallery_no = of_gallery and t.model_pack_no = of_pack
        and f.added_at_head > since and f.added_at_head <= until
      order by f.added_at_head limit at_most),
    whole as (
      select
        case when count(*) = at_most then max(f.added_at_head) else until end as reached,
        coalesce(array_agg(f.face_no order by f.added_at_head), '{}') as face_nos,
        coalesce(string_agg(f.embedding, ''::bytea order by f.added_at_head), '') as embeddings,
        case when min(octet_length(f.embedding)) < max(octet_length(f.embedding))
          then array_agg(octet_length(f.embedding) order by f.added_at_head) end as lengths
      from found f)
    select w.reached, w.face_nos, w.embeddings, array(
      select f.face_no from face f
      where f.gallery_no = of_gallery
        and f.removed_at_head > since and f.removed_at_head <= w.reached), w.lengths
    from whole w;
end
$$;

-- migrate:down
drop function oneton_changes;
create function oneton_changes(
  of_tenant uuid, of_gallery bigint, of_pack bigint, since bigint, until bigint, at_most bigint)
returns table (head bigint, added bigint[], templates bytea, removed bigint[])
language plpgsql as $$
begin
  perform set_config('oneton.tenant', of_tenant::text, true);
  return query
    with found as (
      select f.face_no, f.added_at_head, t.embedding
      from face f join template t using (face_no)
      where f.gallery_no = of_gallery and t.model_pack_no = of_pack
        and f.added_at_head > since and f.added_at_head <= until
      order by f.added_at_head limit at_most),
    whole as (
      select
        case when count(*) = at_most then max(f.added_at_head) else until end as reached,
        coalesce(array_agg(f.face_no order by f.added_at_head), '{}') as face_nos,
        coalesce(string_agg(f.embedding, ''::bytea order by f.added_at_head), '') as embeddings
      from found f)
    select w.reached, w.face_nos, w.embeddings, array(
      select f.face_no from face f
      where f.gallery_no = of_gallery
        and f.removed_at_head > since and f.removed_at_head <= w.reached)
    from whole w;
end
$$;
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
drop function oneton_galleries_to_seal, oneton_encryption_runs, oneton_wrapped_keys,
  oneton_key_in_force;
revoke update (embedding) on template from oneton_app;
drop table encryption_run, tenant_key;
