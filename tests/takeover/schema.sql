-- The tables of a Scalelite v1.8.5, by the names and types of their columns (golden: rows of 03, 07 and 20).
CREATE TABLE recordings (
    id bigserial PRIMARY KEY, record_id varchar UNIQUE, meeting_id varchar, name varchar,
    published boolean NOT NULL DEFAULT false, participants integer, state varchar, starttime timestamp, endtime timestamp,
    deleted_at timestamp, publish_updated boolean NOT NULL DEFAULT false, protected boolean NOT NULL DEFAULT false
);
CREATE TABLE metadata (
    id bigserial PRIMARY KEY, recording_id bigint, key varchar, value varchar, UNIQUE (recording_id, key)
);
CREATE TABLE playback_formats (
    id bigserial PRIMARY KEY, recording_id bigint, format varchar, url varchar, length integer, processing_time integer,
    UNIQUE (recording_id, format)
);
CREATE TABLE thumbnails (
    id bigserial PRIMARY KEY, playback_format_id bigint, width integer, height integer, alt varchar, url varchar,
    sequence integer
);
CREATE TABLE callback_data (
    id bigserial PRIMARY KEY, meeting_id varchar, recording_id integer, callback_attributes text,
    created_at timestamp(6) NOT NULL, updated_at timestamp(6) NOT NULL
);
