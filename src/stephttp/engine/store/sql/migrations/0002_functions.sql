-- Apps, their functions, and the runs of functions.

CREATE TABLE apps (
    app_id          TEXT    PRIMARY KEY,
    name            TEXT    NOT NULL UNIQUE,
    url             TEXT    NOT NULL,
    sdk             TEXT    NOT NULL,
    framework       TEXT    NOT NULL,
    digest          BLOB    NOT NULL,
    synced_ms       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE functions (
    fn_id           TEXT    PRIMARY KEY,
    app_id          TEXT    NOT NULL,
    name            TEXT    NOT NULL,
    query           TEXT    NOT NULL,
    present         INTEGER NOT NULL,
    refused         TEXT,
    triggers        BLOB    NOT NULL,
    config          BLOB    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX functions_by_app ON functions (app_id);

CREATE TABLE function_runs (
    run_id          TEXT    PRIMARY KEY,
    events          BLOB    NOT NULL
) STRICT, WITHOUT ROWID;
