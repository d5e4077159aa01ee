-- migrate:up

-- The app's role: owns nothing, bypasses nothing. Roles belong to the whole server, so another
-- database's migration may be creating it at this moment.
do $$
begin
  create role oneton_app login nosuperuser nocreatedb nocreaterole nobypassrls;
exception when duplicate_object or unique_violation then null;
end
$$;
-- An owner that is no superuser may take the app's role only as its member.
grant oneton_app to current_user;

create table model_pack (
  model_pack_no bigint generated always as identity primary key,
  name text not null,
  sha256 text not null,
  dimension integer not null check (dimension > 0),
  created_at timestamptz not null default now(),
  unique (name, sha256)
);

create table signing_secret (
  purpose text primary key,
  secret bytea not null,
  created_at timestamptz not null default now()
);

create table tenant (
  tenant_id uuid primary key,
  name text not null unique check (name <> ''),
  created_at timestamptz not null default now()
);

create table api_key (
  key_id uuid primary key,
  tenant_id uuid not null references tenant,
  label text not null,
  secret_sha256 bytea not null,
  permissions text[] not null,
  created_at timestamptz not null default now(),
  revoked_at timestamptz
);
create index api_key_by_tenant on api_key (tenant_id);

create table gallery (
  gallery_no bigint generated always as identity primary key,
  tenant_id uuid not null references tenant,
  gallery_id text not null check (gallery_id ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
  kind text not null check (kind in ('enrollment', 'blocklist', 'allowlist')),
  model_pack_no bigint not null references model_pack,
  head bigint not null default 0,
  threshold real not null check (threshold between 0 and 100),
  floor_size_px real not null default 0,
  floor_sharpness real not null default 0,
  floor_exposure real not null default 0,
  created_at timestamptz not null default now(),
  unique (tenant_id, gallery_id),
  unique (tenant_id, gallery_no)
);

-- The face table is its own log: a change to a gallery locks the gallery's row, moves head by one
-- and stamps the face. A purged face keeps its stamps, so that replicas hear of it, and nothing else.
create table face (
  face_no bigint generated always as identity primary key,
  tenant_id uuid not null references tenant,
  gallery_no bigint not null,
  added_at_head bigint not null,
  removed_at_head bigint,
  face_id uuid unique,
  image_content_type text,
  image_erased_at timestamptz,
  idempotency_key text,
  created_at timestamptz default now(),
  foreign key (tenant_id, gallery_no) references gallery (tenant_id, gallery_no),
  unique (gallery_no, added_at_head),
  check ((removed_at_head is null) = (face_id is not null)),
  check (removed_at_head is null
         or (image_content_type is null and idempotency_key is null and created_at is null))
);
create unique index face_by_removal on face (gallery_no, removed_at_head)
  where removed_at_head is not null;
create unique index face_by_idempotency_key on face (gallery_no, idempotency_key)
  where idempotency_key is not null;

create table template (
  model_pack_no bigint not null references model_pack,
  face_no bigint not null references face,
  tenant_id uuid not null references tenant,
  embedding bytea not null,
  primary key (model_pack_no, face_no)
);
alter table template alter column embedding set storage plain;

create function oneton_tenant() returns uuid language sql stable parallel safe
  return nullif(current_setting('oneton.tenant', true), '')::uuid;

alter table tenant enable row level security;
alter table api_key enable row level security;
alter table gallery enable row level security;
alter table face enable row level security;
alter table template enable row level security;
create policy own on tenant using (tenant_id = (select oneton_tenant()));
create policy own on api_key using (tenant_id = (select oneton_tenant()));
create policy own on gallery using (tenant_id = (select oneton_tenant()));
create policy own on face using (tenant_id = (select oneton_tenant()));
create policy own on template using (tenant_id = (select oneton_tenant()));

grant usage on schema public to oneton_app;
grant select, insert on model_pack, signing_secret to oneton_app;
grant select, insert on tenant to oneton_app;
grant select, insert, update on api_key, gallery, face to oneton_app;
grant select, insert, delete on template to oneton_app;
grant select on schema_migrations to oneton_app;

-- One round trip for the head that every answer begins with.
create function oneton_gallery(of_tenant uuid, of_gallery text) returns setof gallery
language plpgsql as $$
begin
  perform set_config('oneton.tenant', of_tenant::text, true);
  return query select * from gallery where tenant_id = of_tenant and gallery_id = of_gallery;
end
$$;

create function oneton_face_ids(of_tenant uuid, face_nos bigint[])
returns table (face_no bigint, face_id uuid)
language plpgsql as $$
begin
  perform set_config('oneton.tenant', of_tenant::text, true);
  return query select f.face_no, f.face_id from face f
    where f.face_no = any (face_nos) and f.removed_at_head is null;
end
$$;

-- The two reads that come before a tenant is known. They run as their owner, which is
-- not subject to the policies.
create function oneton_key(of_key uuid) returns setof api_key
language sql stable security definer set search_path = public
begin atomic
  select * from api_key where key_id = of_key;
end;

create function oneton_tenants() returns setof tenant
language sql stable security definer set search_path = public
begin atomic
  select * from tenant order by created_at, tenant_id;
end;

revoke execute on function oneton_key, oneton_tenants from public;
grant execute on function oneton_key, oneton_tenants to oneton_app;

-- migrate:down
drop function oneton_tenants, oneton_key, oneton_face_ids, oneton_gallery;
drop table template, face, gallery, api_key, tenant, signing_secret, model_pack;
drop function oneton_tenant;
