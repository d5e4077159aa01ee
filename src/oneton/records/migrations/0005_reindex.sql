-- migrate:up

-- A run re-embeds galleries under another model pack. Faces added after a gallery's `start_head`
-- have a template of both packs, so what is left to do is among those before it.
create table reindex_run (
  run_id uuid primary key,
  to_pack_no bigint not null references model_pack,
  state text not null check (state in ('running', 'paused', 'cancelled', 'finished')),
  rate smallint not null check (rate between 1 and 100),
  on_failure text not null check (on_failure in ('keep-erased', 'stop')),
  keep_old interval not null,
  started_by text not null,
  started_at timestamptz not null default now(),
  ended_at timestamptz
);

create table reindex_gallery (
  run_id uuid not null references reindex_run,
  tenant_id uuid not null references tenant,
  gallery_no bigint not null,
  from_pack_no bigint not null references model_pack,
  state text not null check (state in (
    'filling', 'stopped', 'filled', 'kept', 'finished', 'cancelled', 'rolled_back')),
  start_head bigint not null,
  -- Faces up to here have been handed out as jobs.
  handed_head bigint not null default 0,
  to_embed bigint not null,
  to_drop bigint not null,
  embedded bigint not null default 0,
  dropped bigint,
  compared integer,
  agreed integer,
  cleaned boolean not null default false,
  why text not null default '',
  started_at timestamptz not null default now(),
  filled_at timestamptz,
  cut_over_at timestamptz,
  ended_at timestamptz,
  primary key (run_id, gallery_no),
  foreign key (tenant_id, gallery_no) references gallery (tenant_id, gallery_no)
);
create unique index reindex_gallery_once on reindex_gallery (gallery_no)
  where state in ('filling', 'stopped', 'filled', 'kept');

-- Images that yield no face under the new pack. The record and its image stay.
create table reindex_failure (
  run_id uuid not null,
  tenant_id uuid not null references tenant,
  gallery_no bigint not null,
  face_no bigint not null references face,
  reason text not null,
  primary key (run_id, face_no),
  foreign key (run_id, gallery_no) references reindex_gallery
);

-- Records that a cut-over removed, for their image was erased; for a rollback, and for the report.
create table reindex_drop (
  run_id uuid not null,
  tenant_id uuid not null references tenant,
  gallery_no bigint not null,
  face_no bigint not null references face,
  face_id uuid not null,
  image_content_type text,
  image_erased_at timestamptz,
  idempotency_key text,
  created_at timestamptz,
  primary key (run_id, face_no),
  foreign key (run_id, gallery_no) references reindex_gallery
);

alter table reindex_gallery enable row level security;
alter table reindex_failure enable row level security;
alter table reindex_drop enable row level security;
create policy own on reindex_gallery using (tenant_id = (select oneton_tenant()));
create policy own on reindex_failure using (tenant_id = (select oneton_tenant()));
create policy own on reindex_drop using (tenant_id = (select oneton_tenant()));

grant select, insert, update on reindex_run to oneton_app;
grant select, insert, update on reindex_gallery to oneton_app;
grant select, insert, delete on reindex_failure, reindex_drop to oneton_app;

-- What there is to do, across tenants: ids, numbers and counts, nothing of a face.
create function oneton_reindexing() returns table (
  run_id uuid, run_state text, rate smallint, on_failure text, keep_old interval,
  to_pack_no bigint, tenant_id uuid, gallery_no bigint, gallery_id text, from_pack_no bigint,
  state text, start_head bigint, handed_head bigint, to_embed bigint, to_drop bigint,
  embedded bigint, dropped bigint, failed bigint, compared integer, agreed integer,
  cleaned boolean, why text, started_by text,
  started_at timestamptz, filled_at timestamptz, cut_over_at timestamptz, ended_at timestamptz)
language sql stable security definer set search_path = public
begin atomic
  select r.run_id, r.state, r.rate, r.on_failure, r.keep_old, r.to_pack_no, g.tenant_id,
    g.gallery_no, gallery.gallery_id, g.from_pack_no, g.state, g.start_head, g.handed_head,
    g.to_embed, g.to_drop, g.embedded, g.dropped,
    (select count(*) from reindex_failure f
     where f.run_id = g.run_id and f.gallery_no = g.gallery_no),
    g.compared, g.agreed, g.cleaned, g.why, r.started_by, g.started_at, g.filled_at, g.cut_over_at, g.ended_at
  from reindex_run r join reindex_gallery g using (run_id)
  join gallery on gallery.gallery_no = g.gallery_no
  order by r.started_at, g.gallery_no;
end;
revoke execute on function oneton_reindexing from public;
grant execute on function oneton_reindexing to oneton_app;

-- migrate:down
drop function oneton_reindexing;
drop table reindex_drop, reindex_failure, reindex_gallery, reindex_run;
