-- Options of functions, timers of runs as a whole, schedules, and metadata.

ALTER TABLE functions ADD COLUMN paused INTEGER NOT NULL DEFAULT 0;
ALTER TABLE functions ADD COLUMN options BLOB NOT NULL DEFAULT x'7b7d';
-- Apps register again, so that functions get the options that they have.
UPDATE apps SET digest = x'';

CREATE TABLE timers_3 (
    run_id          TEXT    NOT NULL,
    step_id         TEXT    NOT NULL,
    kind            TEXT    NOT NULL
                    CHECK (kind IN ('sleep', 'retry', 'resume', 'event', 'signal', 'invoke',
                                    'planned', 'racing', 'gateway', 'wake', 'lease',
                                    'orphan', 'cancel', 'start', 'finish')),
    due_ms          INTEGER NOT NULL,
    key             TEXT,
    condition       TEXT,
    match_keys      TEXT,
    match_values    TEXT,
    after_event     INTEGER,
    job_id          TEXT    NOT NULL DEFAULT '',
    attempt         INTEGER NOT NULL DEFAULT 0,
    unreached       INTEGER NOT NULL DEFAULT 0,
    aside           TEXT,
    turn_ms         INTEGER,
    payload         BLOB,
    PRIMARY KEY (run_id, step_id)
) STRICT, WITHOUT ROWID;

INSERT INTO timers_3
SELECT run_id, step_id, kind, due_ms, key, condition, match_keys, match_values, after_event, job_id,
       attempt, unreached, aside, CASE WHEN aside IS NOT NULL THEN due_ms END, payload
FROM timers;
DROP TABLE timers;
ALTER TABLE timers_3 RENAME TO timers;

CREATE INDEX timers_by_due ON timers (due_ms) WHERE kind != 'gateway' AND aside IS NULL;
CREATE INDEX gateway_timers ON timers (due_ms) WHERE kind = 'gateway' AND aside IS NULL;
CREATE INDEX timers_aside ON timers (aside, turn_ms) WHERE aside IS NOT NULL AND kind != 'gateway';
CREATE INDEX gateway_timers_aside ON timers (aside, due_ms)
WHERE aside IS NOT NULL AND kind = 'gateway';
CREATE INDEX timers_by_key ON timers (key, kind, match_keys, match_values) WHERE key IS NOT NULL;
CREATE INDEX timers_of_runs ON timers (due_ms) WHERE kind IN ('cancel', 'start', 'finish');

ALTER TABLE events ADD COLUMN internal INTEGER NOT NULL DEFAULT 0;

CREATE TABLE backlog (
    seq             INTEGER PRIMARY KEY,
    name            TEXT    NOT NULL
) STRICT;

CREATE INDEX backlog_by_name ON backlog (name);

CREATE TABLE listeners (
    name            TEXT    NOT NULL,
    fn_id           TEXT    NOT NULL,
    PRIMARY KEY (name, fn_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE rates (
    name            TEXT    PRIMARY KEY,
    free_ns         INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX rates_by_time ON rates (free_ns);

CREATE TABLE singletons (
    name            TEXT    PRIMARY KEY,
    run_id          TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX singletons_by_run ON singletons (run_id);

CREATE TABLE held_starts (
    held            INTEGER PRIMARY KEY,
    name            TEXT    NOT NULL UNIQUE,
    hold            TEXT    NOT NULL CHECK (hold IN ('debounce', 'batch')),
    fn_id           TEXT    NOT NULL,
    shown           TEXT    NOT NULL,
    came            INTEGER NOT NULL,
    size            INTEGER NOT NULL,
    opened_ms       INTEGER NOT NULL,
    due_ms          INTEGER NOT NULL
) STRICT;

CREATE INDEX held_starts_by_due ON held_starts (due_ms);

CREATE TABLE held_events (
    seq             INTEGER PRIMARY KEY,
    held            INTEGER NOT NULL,
    event_id        TEXT    NOT NULL,
    name            TEXT    NOT NULL,
    ts              INTEGER NOT NULL,
    body            BLOB    NOT NULL
) STRICT;

CREATE INDEX held_events_by_start ON held_events (held);

CREATE TABLE held_invokers (
    held            INTEGER NOT NULL,
    invoked_by      TEXT    NOT NULL,
    PRIMARY KEY (held, invoked_by)
) STRICT, WITHOUT ROWID;

CREATE TABLE invokers (
    run_id          TEXT    NOT NULL,
    invoked_by      TEXT    NOT NULL,
    PRIMARY KEY (run_id, invoked_by)
) STRICT, WITHOUT ROWID;

-- Limits that calls of runs have to pass.

CREATE TABLE gates (
    name            TEXT    PRIMARY KEY,
    fn_id           TEXT    NOT NULL,
    place           INTEGER NOT NULL,
    rank            INTEGER NOT NULL,
    most            INTEGER NOT NULL,
    period_ms       INTEGER,
    burst           INTEGER NOT NULL,
    free_ns         INTEGER NOT NULL,
    shown           TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX gates_by_function ON gates (fn_id, place);
CREATE INDEX gates_by_time ON gates (free_ns) WHERE period_ms IS NOT NULL;

CREATE TABLE run_gates (
    run_id          TEXT    NOT NULL,
    gate            TEXT    NOT NULL,
    first_call      INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (run_id, gate)
) STRICT, WITHOUT ROWID;

CREATE INDEX runs_of_gate ON run_gates (gate);
CREATE INDEX first_calls_of_gate ON run_gates (gate) WHERE first_call = 1;

CREATE TABLE turns (
    run_id          TEXT    PRIMARY KEY,
    turn_ms         INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE schedules (
    fn_id           TEXT    NOT NULL,
    place           INTEGER NOT NULL,
    cron            TEXT    NOT NULL,
    jitter_ms       INTEGER NOT NULL,
    time_ms         INTEGER NOT NULL,
    due_ms          INTEGER NOT NULL,
    set_ms          INTEGER NOT NULL,
    PRIMARY KEY (fn_id, place)
) STRICT, WITHOUT ROWID;

CREATE INDEX schedules_by_due ON schedules (due_ms);
CREATE INDEX schedules_by_setting ON schedules (set_ms);

CREATE TABLE run_metadata (
    run_id          TEXT    NOT NULL,
    step_id         TEXT    NOT NULL,
    attempt         INTEGER NOT NULL,
    span_id         TEXT    NOT NULL,
    kind            TEXT    NOT NULL,
    set_ms          INTEGER NOT NULL,
    "values"        BLOB    NOT NULL,
    PRIMARY KEY (run_id, step_id, attempt, span_id, kind)
) STRICT, WITHOUT ROWID;
