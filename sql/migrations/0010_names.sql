-- Names in the terms of the glossary. A column is renamed in the catalogue only, so this takes no
-- time on a database with history. An instance of the version before fails to project until it is
-- replaced; its webhooks are stored meanwhile.
ALTER TABLE contacts RENAME COLUMN told_deal_at TO tracked_deal_at;
ALTER TABLE contacts RENAME COLUMN told_deal_value TO tracked_deal_value;
ALTER TABLE contacts RENAME COLUMN told_deal_agent TO tracked_deal_agent;
ALTER TABLE contact_stages RENAME COLUMN told_at TO reported_at;
ALTER TABLE opportunity_stages RENAME COLUMN told_at TO reported_at;
ALTER TABLE opportunities RENAME COLUMN opened_day TO first_seen_day;
ALTER TABLE opportunities RENAME COLUMN run_began_at TO status_since;
ALTER TABLE opportunities RENAME COLUMN run_began_day TO status_since_day;
ALTER TABLE opportunities RENAME COLUMN run_owner_id TO status_owner_id;
ALTER TABLE platform_webhooks RENAME COLUMN runs_out_at TO times_out_at;
UPDATE entity_events SET event_type = 'backfilled'
WHERE family = 'opportunity' AND event_type = 'found';
