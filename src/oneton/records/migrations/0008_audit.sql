-- migrate:up

-- Which faces, where, and from where: ids only. face_ids: what was changed or read, or what a
-- search answered with. An event may come after its tenant was deleted, so tenant_id refers to
-- nothing.
alter table audit_event
  add face_ids uuid[] not null default '{}',
  add gallery_id text,
  add address text,
  add request_id text,
  drop constraint audit_event_tenant_id_fkey;
create index audit_event_in_order on audit_event (tenant_id, event_no);
create index audit_event_by_actor on audit_event (tenant_id, actor, event_no);
create index audit_event_by_face on audit_event using gin (face_ids);

-- The app's role adds and reads; only the table's owner may do more.
revoke update, delete, truncate on audit_event from oneton_app, public;

-- A policy keeps the index on face_ids from being used, so this reads as the owner, and only what
-- the policy would show.
create function oneton_events_of_face(of_face uuid) returns setof audit_event
language sql stable security definer set search_path = public
begin atomic
  select * from audit_event
  where face_ids @> array[of_face] and tenant_id is not distinct from oneton_tenant();
end;

-- Events of several tenants in one statement, in the order of the arrays; it only adds.
-- ats: null is now. faces: with commas. details: JSON texts.
create function oneton_note_events(
  tenants uuid[], ats timestamptz[], actors text[], addresses text[], request_ids text[],
  actions text[], galleries text[], faces text[], details text[])
returns void
language sql security definer set search_path = public
begin atomic
  insert into audit_event
    (tenant_id, at, actor, address, request_id, action, gallery_id, face_ids, details)
  select e.tenant, coalesce(e.at, now()), e.actor, e.address, e.request, e.action, e.gallery,
    coalesce(string_to_array(nullif(e.face, ''), ','), '{}')::uuid[], e.detail::jsonb
  from unnest(tenants, ats, actors, addresses, request_ids, actions, galleries, faces, details)
    with ordinality
    as e (tenant, at, actor, address, request, action, gallery, face, detail, place)
  order by e.place;
end;

revoke execute on function oneton_events_of_face, oneton_note_events from public;
grant execute on function oneton_events_of_face, oneton_note_events to oneton_app;

-- migrate:down
drop function oneton_note_events, oneton_events_of_face;
drop index audit_event_by_face, audit_event_by_actor, audit_event_in_order;
delete from audit_event e where tenant_id is not null
  and not exists (select from tenant t where t.tenant_id = e.tenant_id);
alter table audit_event drop face_ids, drop gallery_id, drop address, drop request_id,
  add foreign key (tenant_id) references tenant;
