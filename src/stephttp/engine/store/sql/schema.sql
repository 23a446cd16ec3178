-- The engine's memory, schema version 3.
--
-- A RUN is one durable HTTP request. Its first checkpoint makes it, and everything needed to
-- send the same request again (domain, method, path, query, content type, body) is kept with
-- it, unchanged, for as long as the run lives. In status 'sync' the handler is still answering
-- the first request and the engine only takes notes. As soon as something must wait the run is
-- 'async': now the engine drives it, by calling the endpoint again and again until an answer
-- holds the result ('completed', 'failed'; or 'cancelled').
--
-- A STEP is one thing that a handler did, or waits for. Its key is the hash that SDKs send.
-- `memo` is the very JSON that SDKs get back for it; as long as it is NULL the step is not
-- over. A memo is written once: the first output wins.
--
-- A TIMER is one piece of due work, and all due work is in this one table: whatever the engine
-- will do of its own accord, it does because a row here fell due. The row with step_id '' is
-- the call of the endpoint itself ('resume'); the others belong to steps ('sleep': its memo
-- becomes null; 'retry': its back-off is over; 'event', 'signal', 'invoke': the wait has lasted
-- long enough; 'wake': see below). When a step's timer falls due, it becomes, in one transaction,
-- a memo and a 'resume' row. Three kinds are work of their own, done beside the 'resume' row and
-- beside each other: 'planned' and 'racing' (the endpoint is called for this one step) and
-- 'gateway' (the HTTP request in the payload is made). A row that is being worked on stays, and
-- goes in the transaction that stores the outcome. So a killed process needs no clean-up: at the
-- next start what is past due is simply due. A timer that is due, but whose origin has as many calls
-- as it may have, is put `aside`, under that origin, so that others are found without looking at it.
-- Those of one origin are a lane, in the order of `turn_ms`.
--
-- A LEASE is how a sync-phase run survives its process: a row with step_id '@lease', which the
-- process moves ahead as long as it lives ('lease'). When it falls due it gets a last, short
-- respite ('orphan'), and then the run becomes 'async', as if its handler had gone async.
--
-- The deadline of whole runs is the one exception: it is a setting, so it is counted from created_ms
-- of the runs that have not ended.
--
-- A wait is a timer with a `key`: the event's name, the signal's name, or the id of the run that
-- was invoked. What arrives looks up the waits for its key, and for those whose `condition`
-- holds it does in its own transaction what the timer would have done, but with what arrived as
-- memo. If there is a 'resume' row already, the answer of that call may not know of the memo;
-- so the timer stays, as 'wake', and has the endpoint called again afterwards.
--
-- A wait for an event whose condition compares parts of the event with constants has those parts
-- in `match_keys` and the constants in `match_values`, so that an event looks up the few waits
-- that it may end (`rules.conditions.equalities`). `after_event` is the last event that was there
-- when the wait opened: later events are for the wait, earlier ones only if it looks back.
--
-- Three kinds are of a run of a function as a whole, and do not keep it going. 'cancel' is found by
-- events as a wait is, but ends the run; it goes when the run can no longer be cancelled so. 'start'
-- and 'finish' cancel the run when they fall due. 'start' goes with the first call, and 'finish' has
-- its length in `payload` until then.
--
-- An EVENT is kept as it came. It never waits for anybody: what is to see it must wait for it
-- (see Settings.event_lookback). One that repeats the sender's id of another is kept, too, but
-- is `repeated` and ends no wait.
--
-- A DELIVERY is an event for which many waits have to be asked. That is done in portions after the
-- event was stored, in the order of the events of a name, and the row goes when all are asked. A
-- CATCH-UP is the reverse, a new wait for which many earlier events have to be looked at. Until then a
-- wait that is concerned does not time out. Both are begun anew after a crash: a wait that has
-- ended cannot end again.
--
-- The BACKLOG has events whose functions are still to be started: those of a request that starts more
-- runs than one transaction should, and those that the engine sends. A row goes in the transaction
-- that starts the functions, so each event starts them once, whatever crashes.
--
-- An `internal` event is one that the engine itself sends, about the end of a run of a function. It
-- is stored only if a function may be started by it (LISTENERS has their names), or a run waits for
-- it, and it is in no list of events.
--
-- An ENDPOINT is the last that was seen of a function: what is needed to begin a run of it
-- when another run invokes it. Retention forgets one that has no id of its own (`fn`) with its last
-- run. A CANCELLATION ends the runs of a function that began in a span
-- of time; it is done at once, and kept for the runs that begin before the span is over.
--
-- An APP has registered its FUNCTIONS, which events start, and other runs. A function is an endpoint
-- of another kind: it has a row in `endpoints` under the same fn_id, and its runs are runs. The
-- events that started one are in FUNCTION_RUNS, as the function gets them, because it may outlive
-- what is kept of them in `events`. A function that is no longer `present` is not started, but the
-- runs that it has are driven to their end. One that is `refused` asks for what the engine cannot
-- do, as the text says; it is not started either, and neither is one that people have `paused`, which
-- it stays whatever its app registers.
--
-- A RATE says how far ahead of the time an option of a function has been used up: `idempotency`, which
-- is one event in 24 hours for each value of its expression, or `rateLimit`. Once that time has come
-- the row says nothing any more, and goes with rows that are written later.
--
-- A SINGLETON names the latest run of those of which one may be open at a time.
--
-- A HELD START is a run that has not begun, because its EVENTS are held: the latest of those that a
-- debounce holds, or those of a batch so far. It begins when it is due, in the transaction that
-- removes it, and its run has the INVOKERS that waited for it: the first of them is in the run itself.
--
-- A GATE is a limit that calls of runs have to pass: so many at a time, or so many runs that start in
-- a period. RUN_GATES has those of a run until it ends; the one that is for its start goes with its
-- first call. The calls of such a run are put `aside` under the gate that has no room, which is a
-- lane, too; the first character of its name tells it from an origin. Calls under way are counted in
-- memory. A TURN is the place of a run in lanes, if it has gates or a priority: its begin, less the
-- priority. A gate goes with its last run, unless it still says when the next run may start.
-- A FIRST CALL is the request from outside that the application answers: it counts at a gate, from
-- the opening of its run until that leaves its first phase, if the endpoint refuses requests there.
--
-- A SCHEDULE is the next start of a function by time: one row for each of its triggers that is a cron
-- expression, as long as the function is present and not `refused`. When it falls due, one transaction
-- begins the run and moves the row to its next time, so that no time counts twice. The row of a paused
-- function moves on without a run. `set_ms` tells a clock that was wrong: no row was worked out in the future.
--
-- Two rules hold after every transaction: an 'async' run has at least one timer that is not of the
-- run as a whole (it cannot be forgotten), and a run of any other status has none (it cannot be
-- woken), but a 'sync' one may have a lease.
--
-- An IDEMPOTENCY KEY names the run that answers every request which carries it.
--
-- HISTORY is what a run's present state does not tell any more: calls of the endpoint, and attempts
-- that failed. It is only for people to look at. A run that never waits has none.
--
-- A LINK tells which step of a run sent an event, or waited for it. That of step '' is the event
-- which started the run of a function: it was received, so it does not end a wait of that run, too.
--
-- A WARNING is what an SDK has to say of a run without failing it, such as that its handler has
-- changed so that it no longer comes to a step. It is kept once, and is only for people.
--
-- METADATA is what the code of a run, or who rates it, says of the run or of a step: values of several
-- kinds, such as scores. The values of a kind are replaced, or merged by name. It may come after the end of the run.
--
-- A COUNT is how often something happened to the runs of an endpoint in a span of time; `tallies`
-- says what is counted. Counts are all that is left of runs that were deleted, and the reason why
-- an overview of a million runs costs no more than one of ten.
--
-- A STREAM is what the handler of a run pushed to those who follow it, and a PART of it is some
-- frames that came together, as JSON. Each call of the handler is a writer, with numbers of its own:
-- those of the first call are below a million, of the next one below two millions, and so on. A part
-- has the number of its last frame, and its frames have consecutive ones. `outside` is the last
-- push outside of steps that was taken: a later call pushes it again, which does not count. `live`
-- says who pushed for a step last; when another call does, what was there is taken back. Of a stream
-- that is `full`, further pushes are lost. A stream may be older than its run: a first call sends
-- what it pushed before it leaves the run to the engine. Its parts go some time after the end of the
-- run, and then it is `gone`.
--
-- A SPAN is one of OpenTelemetry that somebody's code made while a handler ran; see `otlp`.
--
-- What has a column run_id belongs to that run: retention deletes it with the run, some time after
-- the run's end. Events and cancellations go when they are as old. checks.sql holds the rules above as queries.
--
-- Times end in _ms (milliseconds since the epoch) or _ns (nanoseconds). JSON is stored as
-- BLOB, exactly as it arrived. Big columns come last, so that reading the small ones of a row
-- does not touch their pages.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE runs (
    seq             INTEGER PRIMARY KEY,          -- order of arrival
    run_id          TEXT    NOT NULL UNIQUE,
    status          TEXT    NOT NULL
                    CHECK (status IN ('sync', 'async', 'completed', 'failed', 'cancelled')),
    retries         INTEGER NOT NULL,
    request_version INTEGER NOT NULL,             -- -1: not known yet
    job_id          TEXT    NOT NULL,             -- of the present resume
    attempt         INTEGER NOT NULL,             -- counted failures of the present resume
    unreached       INTEGER NOT NULL,             -- uncounted failures of the present resume
    idle            INTEGER NOT NULL,             -- fruitless answers in a row
    step_count      INTEGER NOT NULL,
    state_size      INTEGER NOT NULL,             -- bytes of all its memos; see Settings.max_state
    last_error      TEXT,
    created_ms      INTEGER NOT NULL,             -- when it was first reported
    began_ms        INTEGER NOT NULL,             -- when its request came in
    first_ns        INTEGER,                      -- how long it was in status 'sync'
    async_ms        INTEGER,                      -- when it became 'async'
    ended_ms        INTEGER,
    app_id          TEXT    NOT NULL,
    fn_id           TEXT    NOT NULL,
    slug            TEXT    NOT NULL,
    digest          BLOB    NOT NULL,             -- of the first checkpoint's body
    event_id        TEXT    NOT NULL,
    event_name      TEXT    NOT NULL,
    event_ts        INTEGER NOT NULL,
    fn              TEXT    NOT NULL,
    domain          TEXT    NOT NULL,
    method          TEXT    NOT NULL,
    path            TEXT    NOT NULL,
    query           TEXT    NOT NULL,
    content_type    TEXT    NOT NULL,
    ip              TEXT    NOT NULL,
    sdk             TEXT    NOT NULL,
    reads_state     INTEGER NOT NULL,             -- whether re-entries may carry the run's state
    error           BLOB,                         -- why it failed: {"name", "message"}
    head            BLOB,                         -- status, headers of a plain final answer
    body            BLOB,                         -- of the original request
    output          BLOB,
    invoked_by      TEXT,                         -- '<run id>.<step id>' of who waits for it
    rerun_of        TEXT                          -- the run whose request it repeats
) STRICT;

CREATE INDEX runs_by_end ON runs (ended_ms) WHERE ended_ms IS NOT NULL;
CREATE INDEX runs_by_event ON runs (event_id);
-- A seq is part of every index, so these list an endpoint's runs of a status in their order.
CREATE INDEX runs_by_endpoint ON runs (fn_id, status);
CREATE INDEX runs_by_status ON runs (status);
CREATE INDEX reruns ON runs (rerun_of) WHERE rerun_of IS NOT NULL;
CREATE INDEX open_runs ON runs (created_ms, fn_id, status) WHERE ended_ms IS NULL;

CREATE TABLE steps (
    run_id          TEXT    NOT NULL,
    step_id         TEXT    NOT NULL,
    seq             INTEGER NOT NULL,             -- order within the run, from 1; 0: the SDK's own
    userland_id     TEXT,
    userland_index  INTEGER NOT NULL,
    branch          TEXT    NOT NULL DEFAULT '',  -- of the handler; '?': one of several; '': not known
    name            TEXT,
    op              TEXT    NOT NULL,
    attempts        INTEGER NOT NULL,
    started_ns      INTEGER NOT NULL,
    duration_ns     INTEGER NOT NULL,
    opts            BLOB,                         -- what was asked for, without secrets
    edited          BLOB,                         -- input that it shall have, whatever the handler says
    error           BLOB,                         -- the last failure
    memo            BLOB,
    PRIMARY KEY (run_id, step_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE history (
    run_id          TEXT    NOT NULL,
    kind            TEXT    NOT NULL              -- 'unreached': all in a row are one entry
                    CHECK (kind IN ('call', 'unreached', 'attempt', 'request')),
    step_id         TEXT    NOT NULL,             -- '' is the handler as a whole
    job_id          TEXT    NOT NULL,             -- of the call; '' for other kinds
    attempt         INTEGER NOT NULL,             -- failed ones before it
    started_ms      INTEGER NOT NULL,
    ended_ms        INTEGER NOT NULL,
    tries           INTEGER NOT NULL,
    error           BLOB,                         -- why it failed
    PRIMARY KEY (run_id, kind, step_id, job_id, attempt)
) STRICT, WITHOUT ROWID;

CREATE TABLE warnings (
    run_id          TEXT    NOT NULL,
    kind            TEXT    NOT NULL,
    step_id         TEXT    NOT NULL,             -- '' is the run as a whole
    at_ms           INTEGER NOT NULL,             -- when it was reported first
    message         TEXT    NOT NULL,
    PRIMARY KEY (run_id, kind, step_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE spans (
    run_id          TEXT    NOT NULL,
    trace_id        BLOB    NOT NULL,
    span_id         BLOB    NOT NULL,
    parent_id       BLOB,
    step_id         TEXT    NOT NULL,             -- '' is outside of steps
    attempt         INTEGER,                      -- of the step
    name            TEXT    NOT NULL,
    kind            TEXT    NOT NULL,
    status          TEXT    NOT NULL CHECK (status IN ('unset', 'ok', 'error')),
    started_ns      INTEGER NOT NULL,
    ended_ns        INTEGER NOT NULL,
    details         BLOB    NOT NULL,             -- JSON: attributes, events, ...
    PRIMARY KEY (run_id, trace_id, span_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE streams (
    run_id          TEXT    PRIMARY KEY,
    writer          TEXT    NOT NULL,             -- the name of the latest
    sent            INTEGER NOT NULL,             -- frames that came from it, in all
    last            INTEGER NOT NULL,             -- the latest number
    size            INTEGER NOT NULL,             -- bytes of all parts, about
    outside         INTEGER NOT NULL,
    live            TEXT    NOT NULL,             -- JSON: number of a writer, by step
    full            INTEGER NOT NULL,
    gone            INTEGER NOT NULL,
    touched_ms      INTEGER NOT NULL,             -- when the latest frame came
    response        BLOB                          -- JSON: the end, as an SDK wrote it
) STRICT, WITHOUT ROWID;

CREATE INDEX streams_by_time ON streams (touched_ms) WHERE gone = 0;

CREATE TABLE stream_parts (
    run_id          TEXT    NOT NULL,
    seq             INTEGER NOT NULL,             -- the number of its last frame
    frames          BLOB    NOT NULL,             -- JSON: event, data and step of each
    PRIMARY KEY (run_id, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE timers (
    run_id          TEXT    NOT NULL,
    step_id         TEXT    NOT NULL,             -- '' is the call of the endpoint
    kind            TEXT    NOT NULL
                    CHECK (kind IN ('sleep', 'retry', 'resume', 'event', 'signal', 'invoke',
                                    'planned', 'racing', 'gateway', 'wake', 'lease',
                                    'orphan', 'cancel', 'start', 'finish')),
    due_ms          INTEGER NOT NULL,
    key             TEXT,                         -- what ends the wait before it is due
    condition       TEXT,                         -- CEL that an event must fulfil as well
    match_keys      TEXT,                         -- JSON: what it compares with constants
    match_values    TEXT,                         -- JSON: the constants
    after_event     INTEGER,                      -- events.seq
    job_id          TEXT    NOT NULL DEFAULT '',  -- of a planned step's calls; else empty
    attempt         INTEGER NOT NULL DEFAULT 0,   -- counted failures of that job, or of requests
    unreached       INTEGER NOT NULL DEFAULT 0,   -- uncounted failures of that job
    aside           TEXT,                         -- an origin, or a gate
    turn_ms         INTEGER,                      -- its place there
    payload         BLOB,                         -- JSON: see model.timer
    PRIMARY KEY (run_id, step_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX timers_by_due ON timers (due_ms) WHERE kind != 'gateway' AND aside IS NULL;
CREATE INDEX gateway_timers ON timers (due_ms) WHERE kind = 'gateway' AND aside IS NULL;
CREATE INDEX timers_aside ON timers (aside, turn_ms) WHERE aside IS NOT NULL AND kind != 'gateway';
CREATE INDEX gateway_timers_aside ON timers (aside, due_ms)
WHERE aside IS NOT NULL AND kind = 'gateway';
CREATE INDEX timers_by_key ON timers (key, kind, match_keys, match_values) WHERE key IS NOT NULL;
CREATE INDEX timers_of_runs ON timers (due_ms) WHERE kind IN ('cancel', 'start', 'finish');

CREATE TABLE events (
    seq             INTEGER PRIMARY KEY,          -- order of arrival
    event_id        TEXT    NOT NULL UNIQUE,
    name            TEXT    NOT NULL,
    dedupe          TEXT,                         -- the sender's id
    repeated        INTEGER NOT NULL,             -- 1: another event had this id before
    received_ms     INTEGER NOT NULL,
    ts              INTEGER NOT NULL,             -- the sender's time
    internal        INTEGER NOT NULL DEFAULT 0,   -- 1: the engine sent it
    body            BLOB    NOT NULL              -- as runs get it
) STRICT;

CREATE TABLE deliveries (
    seq             INTEGER PRIMARY KEY,          -- of the event
    name            TEXT    NOT NULL              -- of the event
) STRICT;

CREATE INDEX deliveries_by_name ON deliveries (name);

CREATE TABLE backlog (
    seq             INTEGER PRIMARY KEY,          -- of the event
    name            TEXT    NOT NULL              -- of the event
) STRICT;

CREATE INDEX backlog_by_name ON backlog (name);

CREATE TABLE catch_ups (
    run_id          TEXT    NOT NULL,
    step_id         TEXT    NOT NULL,
    since_ms        INTEGER NOT NULL,             -- the events that it looks at arrived since then
    PRIMARY KEY (run_id, step_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE links (
    run_id          TEXT    NOT NULL,
    event_id        TEXT    NOT NULL,
    step_id         TEXT    NOT NULL,
    received        INTEGER NOT NULL,             -- 1: it ended the step's wait; 0: the step sent it
    PRIMARY KEY (run_id, event_id, step_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX links_by_event ON links (event_id);
CREATE INDEX events_of_name ON events (name);
CREATE INDEX events_by_name ON events (name, received_ms);
CREATE INDEX events_by_dedupe ON events (dedupe) WHERE dedupe IS NOT NULL;

CREATE TABLE endpoints (
    fn_id           TEXT    PRIMARY KEY,
    app_id          TEXT    NOT NULL,
    slug            TEXT    NOT NULL,
    event_name      TEXT    NOT NULL,
    fn              TEXT    NOT NULL,
    domain          TEXT    NOT NULL,
    method          TEXT    NOT NULL,
    path            TEXT    NOT NULL,
    sdk             TEXT    NOT NULL,
    reads_state     INTEGER NOT NULL,
    retries         INTEGER NOT NULL,
    request_version INTEGER NOT NULL,
    seen_ms         INTEGER NOT NULL              -- its latest run
) STRICT, WITHOUT ROWID;

CREATE INDEX endpoints_by_slug ON endpoints (slug);

CREATE TABLE apps (
    app_id          TEXT    PRIMARY KEY,
    name            TEXT    NOT NULL UNIQUE,
    url             TEXT    NOT NULL,             -- where its functions are served
    sdk             TEXT    NOT NULL,
    framework       TEXT    NOT NULL,
    digest          BLOB    NOT NULL,             -- of what it registered
    synced_ms       INTEGER NOT NULL              -- when that was new
) STRICT, WITHOUT ROWID;

CREATE TABLE functions (
    fn_id           TEXT    PRIMARY KEY,
    app_id          TEXT    NOT NULL,
    name            TEXT    NOT NULL,
    query           TEXT    NOT NULL,             -- of its URL
    present         INTEGER NOT NULL,
    paused          INTEGER NOT NULL DEFAULT 0,   -- 1: it is not started for now
    refused         TEXT,
    triggers        BLOB    NOT NULL,             -- JSON: names of events, and conditions; times
    options         BLOB    NOT NULL,             -- JSON: its limits and the like, checked
    config          BLOB    NOT NULL              -- JSON, as it was registered
) STRICT, WITHOUT ROWID;

CREATE INDEX functions_by_app ON functions (app_id);

CREATE TABLE listeners (
    name            TEXT    NOT NULL,             -- of an internal event
    fn_id           TEXT    NOT NULL,             -- a function that it may start
    PRIMARY KEY (name, fn_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE function_runs (
    run_id          TEXT    PRIMARY KEY,
    events          BLOB    NOT NULL              -- JSON: an array, the first is the one that began it
) STRICT, WITHOUT ROWID;

CREATE TABLE rates (
    name            TEXT    PRIMARY KEY,          -- option, function, digest of the value of its key
    free_ns         INTEGER NOT NULL              -- from then on it is as if nothing had passed
) STRICT, WITHOUT ROWID;

CREATE INDEX rates_by_time ON rates (free_ns);

CREATE TABLE singletons (
    name            TEXT    PRIMARY KEY,          -- as of rates
    run_id          TEXT    NOT NULL              -- the latest run
) STRICT, WITHOUT ROWID;

CREATE INDEX singletons_by_run ON singletons (run_id);

CREATE TABLE held_starts (
    held            INTEGER PRIMARY KEY,
    name            TEXT    NOT NULL UNIQUE,      -- as of rates
    hold            TEXT    NOT NULL CHECK (hold IN ('debounce', 'batch')),
    fn_id           TEXT    NOT NULL,
    shown           TEXT    NOT NULL,             -- the begin of the value of its key, for people
    came            INTEGER NOT NULL,             -- events, so far
    size            INTEGER NOT NULL,             -- bytes of those that are held
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
    invoked_by      TEXT    NOT NULL,             -- as of runs
    PRIMARY KEY (held, invoked_by)
) STRICT, WITHOUT ROWID;

CREATE TABLE invokers (
    run_id          TEXT    NOT NULL,
    invoked_by      TEXT    NOT NULL,             -- as of runs, beside the one that is there
    PRIMARY KEY (run_id, invoked_by)
) STRICT, WITHOUT ROWID;

CREATE TABLE gates (
    name            TEXT    PRIMARY KEY,
    fn_id           TEXT    NOT NULL,             -- of the function that has set it
    place           INTEGER NOT NULL,             -- among the limits of that
    rank            INTEGER NOT NULL,             -- 0: the narrowest
    most            INTEGER NOT NULL,             -- calls at a time; with a period, runs in one
    period_ms       INTEGER,
    burst           INTEGER NOT NULL,
    free_ns         INTEGER NOT NULL,             -- when it has forgotten all starts
    shown           TEXT    NOT NULL              -- the begin of the value of its key, for people
) STRICT, WITHOUT ROWID;

CREATE INDEX gates_by_function ON gates (fn_id, place);
CREATE INDEX gates_by_time ON gates (free_ns) WHERE period_ms IS NOT NULL;

CREATE TABLE run_gates (
    run_id          TEXT    NOT NULL,
    gate            TEXT    NOT NULL,
    first_call      INTEGER NOT NULL DEFAULT 0,  -- 1: the first call takes a place
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
    place           INTEGER NOT NULL,             -- of the trigger among those of the function
    cron            TEXT    NOT NULL,
    jitter_ms       INTEGER NOT NULL,
    time_ms         INTEGER NOT NULL,             -- the next time of the expression
    due_ms          INTEGER NOT NULL,             -- when the function starts: then, or later by its jitter
    set_ms          INTEGER NOT NULL,             -- when this was worked out
    PRIMARY KEY (fn_id, place)
) STRICT, WITHOUT ROWID;

CREATE INDEX schedules_by_due ON schedules (due_ms);
CREATE INDEX schedules_by_setting ON schedules (set_ms);

CREATE TABLE run_metadata (
    run_id          TEXT    NOT NULL,
    step_id         TEXT    NOT NULL,             -- '' is the run as a whole
    attempt         INTEGER NOT NULL,             -- of the step; -1: all
    span_id         TEXT    NOT NULL,             -- of OpenTelemetry; '': no span
    kind            TEXT    NOT NULL,
    set_ms          INTEGER NOT NULL,
    "values"        BLOB    NOT NULL,             -- a JSON object
    PRIMARY KEY (run_id, step_id, attempt, span_id, kind)
) STRICT, WITHOUT ROWID;

CREATE TABLE cancellations (
    seq               INTEGER PRIMARY KEY,
    cancellation_id   TEXT    NOT NULL UNIQUE,
    app_id            TEXT    NOT NULL,           -- as the caller named it
    fn_id             TEXT    NOT NULL,
    function          TEXT    NOT NULL,           -- as the caller named it
    started_after_ms  INTEGER,
    started_before_ms INTEGER NOT NULL,
    condition         TEXT,                       -- CEL over the event that began the run
    created_ms        INTEGER NOT NULL
) STRICT;

CREATE INDEX cancellations_by_fn ON cancellations (fn_id, started_before_ms);

CREATE TABLE idempotency (
    key             BLOB    PRIMARY KEY,          -- digest of scope and key
    request         BLOB    NOT NULL,             -- digest of the request that brought it first
    run_id          TEXT    NOT NULL,
    expires_ms      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_by_expiry ON idempotency (expires_ms);
CREATE INDEX idempotency_by_run ON idempotency (run_id);

CREATE TABLE counts (
    width_s         INTEGER NOT NULL,             -- length of the span; 0: since the beginning
    start_s         INTEGER NOT NULL,             -- its begin, seconds since the epoch
    fn_id           TEXT    NOT NULL,
    what            TEXT    NOT NULL,
    bucket          INTEGER NOT NULL,             -- of durations; 0 for what has none
    n               INTEGER NOT NULL,
    PRIMARY KEY (width_s, start_s, fn_id, what, bucket)
) STRICT, WITHOUT ROWID;
