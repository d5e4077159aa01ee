-- migrate:up

-- What `oneton models add` knows of a pack. A machine has the pack's files; Postgres says which
-- files those have to be.
alter table model_pack
  add version text not null default '',
  add files jsonb not null default '{}',
  add licence text not null default '',
  add licence_accepted_by text,
  add licence_accepted_at timestamptz,
  add calibration jsonb;
grant update, delete on model_pack to oneton_app;

-- A gallery has a threshold, or a target that its threshold follows. While it is re-embedded it has
-- a second pack: new faces get a template of each.
alter table gallery
  -- Each time a pack's templates became whole it is numbered anew: indexes and snapshots of an
  -- earlier time are not taken for it, whoever missed what news.
  add fills integer not null default 0,
  add model_fill integer not null default 0,
  add second_fill integer not null default 0,
  add target_fpir double precision check (target_fpir > 0 and target_fpir < 1),
  add second_pack_no bigint references model_pack check (second_pack_no <> model_pack_no),
  add second text check (second in ('filling', 'filled', 'kept', 'kept-partly')),
  add check ((second is null) = (second_pack_no is null));

create function oneton_packs_in_use() returns setof bigint
language sql stable security definer set search_path = public
begin atomic
  select distinct pack_no from gallery
  cross join unnest(array[model_pack_no, second_pack_no]) as pack_no where pack_no is not null;
end;
revoke execute on function oneton_packs_in_use from public;
grant execute on function oneton_packs_in_use to oneton_app;

-- What operators did to models: who, when, what.
create table audit_event (
  event_no bigint generated always as identity primary key,
  at timestamptz not null default now(),
  actor text not null,
  action text not null,
  details jsonb not null default '{}'
);
grant select, insert on audit_event to oneton_app;

-- migrate:down
drop table audit_event;
drop function oneton_packs_in_use;
alter table gallery drop fills, drop model_fill, drop second_fill, drop target_fpir, drop second, drop second_pack_no;
revoke update, delete on model_pack from oneton_app;
alter table model_pack drop version, drop files, drop licence, drop licence_accepted_by,
  drop licence_accepted_at, drop calibration;
