-- A journal as schema 2 left it: a run that ended, and one that SIGTERM stopped after one file.
BEGIN TRANSACTION;
CREATE TABLE announced (                            -- batches that may be on the wire
    row_id INTEGER PRIMARY KEY,
    run_id INTEGER NOT NULL,
    batch BLOB NOT NULL                             -- MessagePack, see announcements.py
) STRICT;
CREATE TABLE details (                              -- only of files with something to say
    file_id INTEGER PRIMARY KEY,
    reason_code TEXT NOT NULL,
    reason TEXT NOT NULL,
    warning_code INTEGER,
    failure_code INTEGER,
    http_status INTEGER,
    attempts INTEGER NOT NULL,
    request_id TEXT NOT NULL,
    other_file_id INTEGER,
    findings TEXT NOT NULL                          -- JSON list, or ''
) STRICT;
INSERT INTO details VALUES(2,'refused','',NULL,NULL,NULL,0,'',NULL,'');
CREATE TABLE directories (
    dir_id INTEGER PRIMARY KEY,
    root_id INTEGER NOT NULL,
    rel_path BLOB NOT NULL,
    UNIQUE (root_id, rel_path)
) STRICT;
INSERT INTO directories VALUES(1,1,X'64');
INSERT INTO directories VALUES(2,1,X'65');
CREATE TABLE files (
    file_id INTEGER PRIMARY KEY,
    dir_id INTEGER NOT NULL,
    name BLOB NOT NULL,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    mtime_trusted INTEGER NOT NULL,
    outcome INTEGER NOT NULL,
    evidence INTEGER,
    pixel_warning INTEGER NOT NULL,
    seen_run_id INTEGER NOT NULL,
    decided_run_id INTEGER NOT NULL,
    series_id INTEGER,
    sop_instance_uid BLOB,                          -- packed
    sha256 BLOB,                                    -- of the whole file
    UNIQUE (dir_id, name)
) STRICT;
INSERT INTO files VALUES(1,1,X'61',100,1700000000123456789,1,1,1,0,2,1,1,X'1A2A3F',X'6161616161616161616161616161616161616161616161616161616161616161');
INSERT INTO files VALUES(2,1,X'62',100,1700000000123456789,1,10,NULL,0,1,1,1,X'1A2A4F',NULL);
INSERT INTO files VALUES(3,2,X'63',100,1700000000123456789,1,1,1,0,1,1,1,X'1A2A5F',X'6161616161616161616161616161616161616161616161616161616161616161');
CREATE TABLE instances (                            -- who holds the claim on a UID
    study_id INTEGER NOT NULL,
    sop_instance_uid BLOB NOT NULL,                 -- packed
    holder_file_id INTEGER NOT NULL,
    sent_outcome INTEGER,                           -- NULL: as the holder's row says
    sent_size INTEGER,
    sent_sha256 BLOB,
    PRIMARY KEY (study_id, sop_instance_uid)
) STRICT, WITHOUT ROWID;
INSERT INTO instances VALUES(1,X'1A2A3F',1,NULL,NULL,NULL);
INSERT INTO instances VALUES(1,X'1A2A5F',3,NULL,NULL,NULL);
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO meta VALUES('created_at','2026-11-27T00:28:25.845Z');
INSERT INTO meta VALUES('target','https://store.example/datastore/1');
CREATE TABLE roots (
    root_id INTEGER PRIMARY KEY,
    name BLOB NOT NULL UNIQUE,
    path BLOB NOT NULL
) STRICT;
INSERT INTO roots VALUES(1,X'61726368697665',X'2F61726368697665');
CREATE TABLE runs (
    run_id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    operator TEXT NOT NULL,
    host TEXT NOT NULL,
    version TEXT NOT NULL,
    config_digest TEXT NOT NULL,
    target TEXT NOT NULL,
    started_at TEXT NOT NULL,                       -- UTC, ISO 8601
    finished_at TEXT,                               -- NULL: going on, or it was killed
    exit_code INTEGER,
    studies INTEGER NOT NULL DEFAULT 0,             -- met in this run
    unreadable_directories INTEGER NOT NULL DEFAULT 0,
    requests INTEGER NOT NULL DEFAULT 0,
    retries INTEGER NOT NULL DEFAULT 0,
    bytes_stored INTEGER NOT NULL DEFAULT 0,
    elapsed_s REAL NOT NULL DEFAULT 0,
    peak_rss_mib REAL NOT NULL DEFAULT 0,
    bottleneck TEXT NOT NULL DEFAULT ''
) STRICT;
INSERT INTO runs VALUES(1,'night','','','','','https://store.example/datastore/1','2026-11-27T00:28:25.846Z','2026-11-27T00:28:25.849Z',0,1,0,1,0,0,1.5,0.0,'');
INSERT INTO runs VALUES(2,'night','','','','','https://store.example/datastore/1','2026-11-27T00:28:25.852Z','2026-11-27T00:28:25.854Z',143,1,0,1,0,0,1.5,0.0,'');
CREATE TABLE series (
    series_id INTEGER PRIMARY KEY,
    study_id INTEGER NOT NULL,
    uid BLOB NOT NULL,                              -- packed
    modality TEXT NOT NULL,
    seen INTEGER NOT NULL DEFAULT 0,                -- rows in files
    stored INTEGER NOT NULL DEFAULT 0,              -- of these in the store
    exceptions INTEGER NOT NULL DEFAULT 0,          -- of these incomplete
    UNIQUE (study_id, uid)
) STRICT;
INSERT INTO series VALUES(1,1,X'1A2A1F','CT',3,2,1);
CREATE TABLE studies (
    study_id INTEGER PRIMARY KEY,
    uid BLOB NOT NULL UNIQUE,                       -- packed
    year INTEGER,                                   -- of StudyDate
    seen_run_id INTEGER NOT NULL
) STRICT;
INSERT INTO studies VALUES(1,X'1A2F',2020,2);
CREATE TABLE totals (                               -- run 0: the whole journal as it stands
    run_id INTEGER NOT NULL,
    outcome INTEGER NOT NULL,
    pixel_warning INTEGER NOT NULL,
    files INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (run_id, outcome, pixel_warning)
) STRICT, WITHOUT ROWID;
INSERT INTO totals VALUES(0,1,0,2,200);
INSERT INTO totals VALUES(0,10,0,1,100);
INSERT INTO totals VALUES(1,1,0,2,200);
INSERT INTO totals VALUES(1,10,0,1,100);
INSERT INTO totals VALUES(2,1,0,1,100);
pragma user_version=2;
pragma application_id=1229866801;
COMMIT TRANSACTION;
