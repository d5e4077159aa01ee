-- migrate:up

-- One secret is enough for the dialects that send one string; each is found by its digest.
alter table api_key add sandbox boolean not null default false;
create unique index api_key_by_secret on api_key (secret_sha256);

create function oneton_key_by_secret(of_secret bytea) returns setof api_key
language sql stable security definer set search_path = public
begin atomic
  select * from api_key where secret_sha256 = of_secret;
end;

-- public_id: what dialects call merchant or organization. credits: null is without end.
-- requests: the last number that a saved request got.
alter table tenant
  add public_id text not null unique
    default substr(replace(gen_random_uuid()::text, '-', ''), 1, 24),
  add credits bigint check (credits >= 0),
  add options jsonb not null default '{}',
  add requests bigint not null default 0;
grant update (credits, options, requests) on tenant to oneton_app;

-- Written anew, for their rows have grown.
create or replace function oneton_key(of_key uuid) returns setof api_key
language sql stable security definer set search_path = public
begin atomic
  select * from api_key where key_id = of_key;
end;
create or replace function oneton_tenants() returns setof tenant
language sql stable security definer set search_path = public
begin atomic
  select * from tenant order by created_at, tenant_id;
end;

create function oneton_tenant_by_public_id(of_id text) returns setof tenant
language sql stable security definer set search_path = public
begin atomic
  select * from tenant where public_id = of_id;
end;

-- A deleted gallery is hidden from everybody at once; a job erases what it holds.
alter table gallery
  add description text not null default '',
  add deleted_at timestamptz,
  drop constraint gallery_tenant_id_gallery_id_key;
create unique index gallery_by_name on gallery (tenant_id, gallery_id) where deleted_at is null;
drop policy own on gallery;
create policy own on gallery
  using (tenant_id = (select oneton_tenant()) and deleted_at is null)
  with check (tenant_id = (select oneton_tenant()));

create function oneton_delete_gallery(of_tenant uuid, of_gallery text) returns bigint
language sql security definer set search_path = public
begin atomic
  update gallery set deleted_at = now()
    where tenant_id = of_tenant and gallery_id = of_gallery and deleted_at is null
      and second_pack_no is null
    returning gallery_no;
end;

-- Those galleries, of tenants that are here, which are no more: a process asks for the galleries
-- that it keeps files of.
create function oneton_galleries_gone(tenants uuid[], gallery_nos bigint[]) returns setof bigint
language sql stable security definer set search_path = public
begin atomic
  select kept.gallery_no from unnest(tenants, gallery_nos) as kept (tenant_id, gallery_no)
  where exists (select from tenant t where t.tenant_id = kept.tenant_id)
    and not exists (select from gallery g where g.gallery_no = kept.gallery_no
                    and g.tenant_id = kept.tenant_id and g.deleted_at is null);
end;

-- What the caller knows a face by, and where it came from: null is a plain enrolment, else
-- session, imported, list_entry or retained_template. request_id: of the saved call.
alter table face
  add external_id text,
  add metadata jsonb,
  add source text,
  add request_id uuid,
  add check (removed_at_head is null or (
    external_id is null and metadata is null and source is null and request_id is null));
create index face_by_external_id on face (tenant_id, external_id) where external_id is not null;
create index face_by_request on face (request_id) where request_id is not null;
alter table reindex_drop
  add external_id text, add metadata jsonb, add source text, add request_id uuid;

create function oneton_erase_gallery(of_tenant uuid, of_gallery_no bigint, face_nos bigint[])
returns boolean language plpgsql security definer set search_path = public as $$
declare
  ours bigint[];
begin
  if not exists (select from gallery where tenant_id = of_tenant and gallery_no = of_gallery_no
                 and deleted_at is not null) then
    return false;
  end if;
  ours := array(select f.face_no from face f
                where f.face_no = any (face_nos) and f.gallery_no = of_gallery_no);
  delete from template where face_no = any (ours);
  delete from reindex_failure where face_no = any (ours);
  delete from reindex_drop where face_no = any (ours);
  delete from face where face_no = any (ours);
  if not exists (select from face where gallery_no = of_gallery_no) then
    delete from reindex_gallery where gallery_no = of_gallery_no;
    delete from gallery where gallery_no = of_gallery_no;
    return true;
  end if;
  return false;
end
$$;

-- Every saved call. `asked` and `result` are the dialect's own; the other columns are everyone's.
create table request (
  request_id uuid primary key,
  tenant_id uuid not null references tenant,
  number bigint,
  public_id text not null unique,
  dialect text not null,
  kind text not null,
  state text not null check (state in (
    'in_process', 'approved', 'declined', 'in_review', 'error')),
  score double precision,
  external_id text,
  metadata jsonb,
  asked jsonb not null default '{}',
  result jsonb not null default '{}',
  face_id uuid,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  due_at timestamptz,
  unique (tenant_id, number)
);
create index request_by_age on request (tenant_id, created_at desc, request_id desc);
create index request_by_external_id on request (tenant_id, external_id);
create index request_due on request (due_at) where due_at is not null;

-- What a reviewer did to a request.
create table request_review (
  review_no bigint generated always as identity primary key,
  tenant_id uuid not null references tenant,
  request_id uuid not null references request on delete cascade,
  state_before text not null,
  state text not null,
  actor text not null,
  comment text not null default '',
  at timestamptz not null default now()
);
create index request_review_by_request on request_review (request_id);

-- Pictures that are of no face record: of requests, sessions, uploads. The object store has each
-- as <tenant>/_pictures/<id>. due_at: when it is to be erased; null is with its request.
create table picture (
  picture_id uuid primary key,
  tenant_id uuid not null references tenant,
  content_type text not null,
  request_id uuid references request on delete cascade,
  name text not null default '',
  created_at timestamptz not null default now(),
  due_at timestamptz
);
create index picture_by_request on picture (request_id) where request_id is not null;
create index picture_due on picture (due_at) where due_at is not null;
create index picture_by_tenant on picture (tenant_id, picture_id);

-- One round trip for what candidates are shown with.
create function oneton_face_details(of_tenant uuid, face_ids uuid[], face_nos bigint[])
returns table (
  face_no bigint, face_id uuid, tenant_id uuid, gallery_id text, kind text, image_erased_at timestamptz,
  created_at timestamptz, external_id text, metadata jsonb, source text, request_id uuid,
  request_number bigint, request_public_id text, request_kind text, request_dialect text,
  request_state text)
language plpgsql as $$
begin
  perform set_config('oneton.tenant', of_tenant::text, true);
  return query select f.face_no, f.face_id, f.tenant_id, g.gallery_id, g.kind, f.image_erased_at,
    f.created_at, f.external_id, f.metadata, f.source, f.request_id, r.number, r.public_id, r.kind,
    r.dialect, r.state
    from face f join gallery g using (gallery_no)
    left join request r on r.request_id = f.request_id
    where (f.face_id = any (face_ids) or f.face_no = any (face_nos))
      and f.removed_at_head is null;
end
$$;

-- Face records that are to be purged at some time: templates that outlive their call for so long.
-- Not a column of face, for a rollback of a reindex would lose it.
create table face_expiry (
  face_id uuid primary key,
  tenant_id uuid not null references tenant,
  due_at timestamptz not null
);
create index face_expiry_due on face_expiry (due_at);

create function oneton_faces_due(at_most integer) returns table (tenant_id uuid, face_id uuid)
language sql stable security definer set search_path = public
begin atomic
  select f.tenant_id, f.face_id from face_expiry f
  where f.due_at <= now() order by f.due_at limit at_most;
end;

create table webhook_endpoint (
  endpoint_id uuid primary key,
  tenant_id uuid not null references tenant,
  dialect text not null check (dialect in ('didit', 'veriflow', 'native')),
  label text not null default '',
  url text not null,
  secret text not null,
  events text[] not null default '{}',
  enabled boolean not null default true,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  unique (tenant_id, dialect, url)
);
-- VeriFlow's organizations have one address.
create unique index webhook_endpoint_of_veriflow on webhook_endpoint (tenant_id)
  where dialect = 'veriflow';

-- Written in the transaction of the change that it tells of, and gone with the request that it
-- tells of. next_at: null once it is over.
create table outbox (
  delivery_id uuid primary key,
  tenant_id uuid not null references tenant,
  endpoint_id uuid not null references webhook_endpoint on delete cascade,
  event_id uuid not null,
  request_id uuid references request on delete cascade,
  event_type text not null,
  body jsonb not null,
  test boolean not null default false,
  attempts integer not null default 0,
  next_at timestamptz default now(),
  delivered_at timestamptz,
  dropped_at timestamptz,
  last_status integer,
  last_error text,
  created_at timestamptz not null default now()
);
create index outbox_due on outbox (next_at) where next_at is not null;
create index outbox_by_request on outbox (request_id) where request_id is not null;
create index outbox_over on outbox (created_at) where next_at is null;
create index outbox_by_tenant on outbox (tenant_id, created_at desc);

create function oneton_forget_deliveries(days integer) returns bigint
language sql security definer set search_path = public
begin atomic
  with gone as (
    delete from outbox where next_at is null and created_at < now() - make_interval(days => days)
    returning 1)
  select count(*) from gone;
end;

-- Endpoints take turns, so that one that never answers holds nobody else's deliveries up.
create function oneton_outbox_due(at_most integer) returns table (
  delivery_id uuid, tenant_id uuid)
language sql stable security definer set search_path = public
begin atomic
  select o.delivery_id, o.tenant_id from outbox o
  where o.next_at <= now()
  order by row_number() over (partition by o.endpoint_id order by o.next_at), o.next_at
  limit at_most;
end;

-- What ought to be erased by now: ids only.
create function oneton_due(at_most integer) returns table (
  tenant_id uuid, what text, id uuid)
language sql stable security definer set search_path = public
begin atomic
  (select p.tenant_id, 'picture', p.picture_id from picture p
   where p.due_at <= now() order by p.due_at limit at_most)
  union all
  (select r.tenant_id, 'request', r.request_id from request r
   where r.due_at <= now() order by r.due_at limit at_most);
end;

-- Long work of one tenant, by the job queue.
create table job (
  job_id uuid primary key,
  tenant_id uuid not null references tenant,
  kind text not null,
  subject text not null,
  subject_no bigint,
  state text not null default 'queued' check (state in ('queued', 'running', 'done', 'failed')),
  done bigint not null default 0,
  total bigint not null default 0,
  why text not null default '',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  ended_at timestamptz
);
create index job_open on job (created_at) where state in ('queued', 'running');

create function oneton_jobs_open() returns table (job_id uuid, tenant_id uuid, kind text)
language sql stable security definer set search_path = public
begin atomic
  select j.job_id, j.tenant_id, j.kind from job j where j.state in ('queued', 'running')
  order by j.created_at;
end;

-- The first answer to every Idempotency-Key. done_at: null while somebody is at it.
create table idempotency (
  tenant_id uuid not null references tenant,
  key text not null,
  fingerprint bytea not null,
  claimed_at timestamptz not null default now(),
  done_at timestamptz,
  status integer,
  headers jsonb,
  body bytea,
  primary key (tenant_id, key)
);
create index idempotency_by_age on idempotency (claimed_at);

create function oneton_forget_answers(hours integer) returns bigint
language sql security definer set search_path = public
begin atomic
  with gone as (
    delete from idempotency where claimed_at < now() - make_interval(hours => hours) returning 1)
  select count(*) from gone;
end;

-- How often a key has called since `started_at`; a crash of Postgres may empty it.
create unlogged table rate_window (
  key_id uuid not null,
  kind text not null,
  started_at timestamptz not null,
  calls integer not null,
  primary key (key_id, kind)
);

-- uqudo: a photo that waits for a selfie. max_attempts: as the first selfie had it. matched: null
-- until the session is over. result: signed.
create table face_session (
  session_id uuid primary key,
  tenant_id uuid not null references tenant,
  key_id uuid not null,
  picture_id uuid not null,
  attempts integer not null default 0,
  max_attempts integer,
  matched boolean,
  result text,
  jti uuid unique,
  created_at timestamptz not null,
  expires_at timestamptz not null
);
create index face_session_due on face_session (expires_at);

create function oneton_face_sessions_due(at timestamptz, at_most integer) returns table (
  tenant_id uuid, session_id uuid)
language sql stable security definer set search_path = public
begin atomic
  select s.tenant_id, s.session_id from face_session s
  where s.expires_at <= at order by s.expires_at limit at_most;
end;

-- The selfie of a session's result, which outlives the session; it goes with its picture.
create table session_image (
  picture_id uuid primary key references picture on delete cascade,
  tenant_id uuid not null references tenant,
  key_id uuid not null,
  session_id uuid not null,
  jti uuid not null,
  expires_at timestamptz not null
);
create index session_image_by_session on session_image (session_id);
create index session_image_by_jti on session_image (jti);

-- RSA keys that results are signed with; one signs, the others stay published a while.
create table signing_key (
  kid text primary key,
  private_pem text not null,
  created_at timestamptz not null default now(),
  retired_at timestamptz
);
create unique index signing_key_in_force on signing_key ((true)) where retired_at is null;

-- Didit: lists, their entries, and the users of its callers. gallery_id: holds the faces of a list
-- of faces; face_id: the entry's record in it. reference_id: the caller's, of any kind.
create table list (
  list_id uuid primary key,
  tenant_id uuid not null references tenant,
  name text not null,
  description text,
  list_type text not null,
  entry_type text not null,
  is_system boolean not null default false,
  gallery_id text,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  unique (tenant_id, name)
);

create table list_entry (
  entry_id uuid primary key,
  tenant_id uuid not null references tenant,
  list_id uuid not null references list on delete cascade,
  value text not null,
  display_label text,
  comment text,
  added_by text not null,
  reference_request_id uuid,
  reference_id uuid,
  face_id uuid,
  metadata jsonb,
  created_at timestamptz not null default now(),
  unique (list_id, value)
);
create index list_entry_by_list on list_entry (list_id, created_at desc);
create unique index list_entry_by_request on list_entry (list_id, reference_request_id);

create table vendor_user (
  user_id uuid primary key,
  tenant_id uuid not null references tenant,
  vendor_data text not null,
  details jsonb not null default '{}',
  created_at timestamptz not null default now(),
  unique (tenant_id, vendor_data)
);

-- CypherFace: registered users, their pictures, upload links and liveness sessions.
create table merchant_user (
  user_id text primary key,
  tenant_id uuid not null references tenant,
  name text,
  email text,
  phone text,
  external_id text,
  source_id uuid,
  target_id uuid,
  created_at timestamptz not null default now(),
  unique (tenant_id, email),
  unique (tenant_id, external_id)
);

create table upload (
  upload_id uuid primary key,
  tenant_id uuid not null references tenant,
  user_id text not null references merchant_user on delete cascade,
  purpose text not null check (purpose in ('upload', 'match')),
  image_name text not null,
  content_type text not null,
  created_at timestamptz not null default now(),
  expires_at timestamptz not null,
  used_at timestamptz
);
create index upload_by_user on upload (user_id);

create table liveness_session (
  session_id uuid primary key,
  tenant_id uuid not null references tenant,
  user_id text not null references merchant_user on delete cascade,
  frame_id uuid,
  confidence double precision,
  created_at timestamptz not null,
  expires_at timestamptz not null,
  ended_at timestamptz
);
create index liveness_session_by_user on liveness_session (user_id);

-- What happened to a tenant's data; operators' events have no tenant.
alter table audit_event add tenant_id uuid references tenant;
create index audit_event_by_tenant on audit_event (tenant_id, at desc);
alter table audit_event enable row level security;
create policy own on audit_event
  using (tenant_id is not distinct from (select oneton_tenant()));

alter table request enable row level security;
alter table request_review enable row level security;
alter table picture enable row level security;
alter table face_expiry enable row level security;
alter table webhook_endpoint enable row level security;
alter table outbox enable row level security;
alter table job enable row level security;
alter table idempotency enable row level security;
alter table face_session enable row level security;
alter table session_image enable row level security;
alter table list enable row level security;
alter table list_entry enable row level security;
alter table vendor_user enable row level security;
alter table merchant_user enable row level security;
alter table upload enable row level security;
alter table liveness_session enable row level security;
create policy own on request using (tenant_id = (select oneton_tenant()));
create policy own on request_review using (tenant_id = (select oneton_tenant()));
create policy own on picture using (tenant_id = (select oneton_tenant()));
create policy own on face_expiry using (tenant_id = (select oneton_tenant()));
create policy own on webhook_endpoint using (tenant_id = (select oneton_tenant()));
create policy own on outbox using (tenant_id = (select oneton_tenant()));
create policy own on job using (tenant_id = (select oneton_tenant()));
create policy own on idempotency using (tenant_id = (select oneton_tenant()));
create policy own on face_session using (tenant_id = (select oneton_tenant()));
create policy own on session_image using (tenant_id = (select oneton_tenant()));
create policy own on list using (tenant_id = (select oneton_tenant()));
create policy own on list_entry using (tenant_id = (select oneton_tenant()));
create policy own on vendor_user using (tenant_id = (select oneton_tenant()));
create policy own on merchant_user using (tenant_id = (select oneton_tenant()));
create policy own on upload using (tenant_id = (select oneton_tenant()));
create policy own on liveness_session using (tenant_id = (select oneton_tenant()));

grant select, insert, update, delete on face_expiry, request, picture, webhook_endpoint, outbox, job,
  idempotency, rate_window, face_session, list, list_entry, vendor_user, merchant_user, upload,
  liveness_session, session_image to oneton_app;
grant select, insert on request_review to oneton_app;
grant select, insert, update, delete on signing_key to oneton_app;

revoke execute on function oneton_key_by_secret, oneton_tenant_by_public_id,
  oneton_delete_gallery, oneton_erase_gallery, oneton_outbox_due, oneton_due, oneton_jobs_open,
  oneton_galleries_gone, oneton_forget_answers, oneton_forget_deliveries,
  oneton_face_sessions_due, oneton_faces_due
  from public;
grant execute on function oneton_key_by_secret, oneton_tenant_by_public_id,
  oneton_delete_gallery, oneton_erase_gallery, oneton_outbox_due, oneton_due, oneton_jobs_open,
  oneton_galleries_gone, oneton_forget_answers, oneton_forget_deliveries,
  oneton_face_sessions_due, oneton_faces_due
  to oneton_app;

-- migrate:down
drop function oneton_face_details, oneton_jobs_open, oneton_due, oneton_outbox_due, oneton_erase_gallery,
  oneton_delete_gallery, oneton_tenant_by_public_id, oneton_key_by_secret;
drop function oneton_face_sessions_due, oneton_galleries_gone, oneton_forget_answers;
drop function oneton_faces_due, oneton_forget_deliveries;
drop table face_expiry, session_image, liveness_session, upload, merchant_user, vendor_user, list_entry, list, signing_key,
  face_session, rate_window, idempotency, job, outbox, webhook_endpoint, picture, request_review,
  request;
drop policy own on audit_event;
alter table audit_event disable row level security;
alter table audit_event drop tenant_id;
alter table reindex_drop drop external_id, drop metadata, drop source, drop request_id;
alter table face drop external_id, drop metadata, drop source, drop request_id;
drop policy own on gallery;
delete from gallery where deleted_at is not null;
drop index gallery_by_name;
alter table gallery drop description, drop deleted_at, add unique (tenant_id, gallery_id);
create policy own on gallery using (tenant_id = (select oneton_tenant()));
alter table tenant drop public_id, drop credits, drop options, drop requests;
drop index api_key_by_secret;
alter table api_key drop sandbox;
create or replace function oneton_key(of_key uuid) returns setof api_key
language sql stable security definer set search_path = public
begin atomic
  select * from api_key where key_id = of_key;
end;
create or replace function oneton_tenants() returns setof tenant
language sql stable security definer set search_path = public
begin atomic
  select * from tenant order by created_at, tenant_id;
end;
