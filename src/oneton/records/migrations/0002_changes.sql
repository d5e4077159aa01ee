-- migrate:up

-- One round trip, and one row, for what an index has to follow: a row each costs the client more
-- than the server. Every face among the first `at_most` added after `since`, and every face removed
-- after it, up to the head that these reach.
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

-- migrate:down
drop function oneton_changes;
