-- Every statement that the engine runs while it works. See schema.sql for what it means.

-- name: insert_run
INSERT INTO runs (run_id, status, retries, request_version, job_id, attempt, unreached, idle,
                  step_count, state_size, last_error, created_ms, began_ms, first_ns, async_ms, ended_ms, app_id, fn_id,
                  slug, digest, event_id, event_name, event_ts, fn, domain, method, path, query,
                  content_type, ip, sdk, reads_state, error, head, body, output, invoked_by,
                  rerun_of)
VALUES (:run_id, :status, :retries, :request_version, :job_id, :attempt, :unreached, :idle,
        :step_count, :state_size, :last_error, :created_ms, :began_ms, :first_ns, :async_ms, :ended_ms, :app_id, :fn_id,
        :slug, :digest, :event_id, :event_name, :event_ts, :fn, :domain, :method, :path, :query,
        :content_type, :ip, :sdk, :reads_state, :error, :head, :body, :output, :invoked_by,
        :rerun_of)
ON CONFLICT (run_id) DO NOTHING

-- name: update_run
UPDATE runs
SET status = :status, request_version = :request_version, job_id = :job_id, attempt = :attempt,
    unreached = :unreached, idle = :idle, step_count = :step_count, state_size = :state_size,
    last_error = :last_error
WHERE run_id = :run_id

-- name: end_run
UPDATE runs
SET status = :status, request_version = :request_version, job_id = :job_id, attempt = :attempt,
    unreached = :unreached, idle = :idle, step_count = :step_count, state_size = :state_size,
    last_error = :last_error,
    ended_ms = :ended_ms, error = :error, head = :head, output = :output
WHERE run_id = :run_id

-- name: end_first_phase
UPDATE runs
SET first_ns = coalesce(:took_ns, max(0, :now_ms - began_ms) * 1000000),
    async_ms = CASE :status WHEN 'async' THEN :now_ms END
WHERE run_id = :run_id

-- name: first_phase
SELECT first_ns FROM runs WHERE run_id = ?

-- name: run_states
-- The first columns are in the order of the fields of `Run`.
SELECT run_id, status, retries, request_version, job_id, attempt, unreached, idle, step_count,
       state_size, last_error, ended_ms, invoked_by, fn_id, began_ms,
       EXISTS (SELECT 1 FROM function_runs WHERE function_runs.run_id = runs.run_id),
       EXISTS (SELECT 1 FROM turns WHERE turns.run_id = runs.run_id)
FROM runs WHERE run_id IN (SELECT value FROM json_each(?))

-- name: run_digest
SELECT digest FROM runs WHERE run_id = ?

-- name: run_output
SELECT status, output, head, error, sdk FROM runs WHERE run_id = ?

-- name: run_calls
SELECT run_id, job_id, attempt, request_version, event_name, sdk, domain, method, path, query,
       content_type, coalesce(body, x''), fn_id, reads_state, unreached, retries, events
FROM runs LEFT JOIN function_runs USING (run_id)
WHERE run_id IN (SELECT value FROM json_each(?))

-- name: source_run
SELECT fn_id, retries, request_version, run_id, app_id, slug, digest, event_id, event_name,
       event_ts, fn, domain, method, path, query, content_type, ip, sdk, created_ms, began_ms, body,
       reads_state, NULL, events
FROM runs LEFT JOIN function_runs USING (run_id) WHERE run_id = ?

-- name: source_steps
SELECT step_id, seq, userland_id, userland_index, name, op, memo, attempts, started_ns,
       duration_ns, error, opts, NULL, branch
FROM steps WHERE run_id = ? ORDER BY seq

-- name: run_origin
SELECT domain FROM runs WHERE run_id = ?

-- name: run_event
SELECT status, events, event_id, event_name, event_ts, domain, method, path, query, content_type,
       ip, fn, body
FROM runs LEFT JOIN function_runs USING (run_id) WHERE run_id = ?

-- name: run_view
SELECT run_id, created_ms, fn_id, event_id, status, ended_ms, output, slug, attempt, last_error,
       error, invoked_by
FROM runs WHERE run_id = ?

-- name: upsert_step
INSERT INTO steps (run_id, step_id, seq, userland_id, userland_index, branch, name, op, attempts,
                   started_ns, duration_ns, opts, edited, error, memo)
VALUES (:run_id, :step_id, :seq, :userland_id, :userland_index, :branch, :name, :op, :attempts,
        :started_ns, :duration_ns, :opts, :edited, :error, :memo)
ON CONFLICT (run_id, step_id) DO UPDATE
SET op = excluded.op, branch = excluded.branch, attempts = excluded.attempts, started_ns = excluded.started_ns,
    duration_ns = excluded.duration_ns, opts = coalesce(excluded.opts, opts),
    error = excluded.error, memo = excluded.memo

-- name: resolve_step
UPDATE steps SET memo = :memo, duration_ns = max(0, :now_ns - started_ns)
WHERE run_id = :run_id AND step_id = :step_id

-- name: see_step
UPDATE steps SET duration_ns = max(duration_ns, :after_ns - started_ns)
WHERE run_id = :run_id AND step_id = :step_id

-- name: span_room
SELECT runs.run_id, count(spans.span_id), coalesce(sum(length(spans.details)), 0)
FROM runs LEFT JOIN spans USING (run_id)
WHERE runs.run_id IN (SELECT value FROM json_each(?)) GROUP BY runs.run_id

-- name: insert_span
INSERT INTO spans (run_id, trace_id, span_id, parent_id, step_id, attempt, name, kind, status,
                   started_ns, ended_ns, details)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (run_id, trace_id, span_id) DO NOTHING

-- name: run_spans
SELECT run_id, trace_id, span_id, parent_id, step_id, attempt, name, kind, status, started_ns,
       ended_ns, details
FROM spans WHERE run_id = ? ORDER BY started_ns, ended_ns DESC, span_id

-- name: known_steps
SELECT step_id, attempts, memo IS NOT NULL FROM steps
WHERE run_id = ? AND step_id IN (?, ?, ?, ?)

-- name: step_memo
SELECT memo FROM steps WHERE run_id = ? AND step_id = ?

-- name: large_states
SELECT run_id FROM steps
WHERE run_id IN (SELECT value FROM json_each(:run_ids))
GROUP BY run_id
HAVING sum(coalesce(length(memo), 0) + coalesce(length(edited), 0)) > :most

-- name: states
SELECT steps.run_id, steps.step_id, steps.memo, steps.edited, steps.op, steps.attempts,
       timers.step_id IS NOT NULL, steps.userland_id, steps.userland_index, steps.branch
FROM steps LEFT JOIN timers USING (run_id, step_id)
WHERE steps.run_id IN (SELECT value FROM json_each(?))
ORDER BY steps.run_id, steps.started_ns + steps.duration_ns, steps.seq = 0, steps.seq

-- name: step_list
SELECT step_id, userland_id, userland_index, name, op, attempts, started_ns, duration_ns,
       coalesce(error, CASE WHEN substr(memo, 1, 9) = CAST('{"error":' AS BLOB)
                       THEN substr(memo, 10, length(memo) - 10) END),
       memo IS NOT NULL, substr(memo, 1, 9) = CAST('{"error":' AS BLOB), timers.due_ms
FROM steps LEFT JOIN timers USING (run_id, step_id)
WHERE run_id = ? AND seq > 0 ORDER BY seq

-- name: add_history
INSERT INTO history (run_id, kind, step_id, job_id, attempt, started_ms, ended_ms, tries, error)
VALUES (:run_id, :kind, :step_id, :job_id, :attempt, :started_ms, :ended_ms, 1, :error)
ON CONFLICT (run_id, kind, step_id, job_id, attempt) DO UPDATE
SET ended_ms = excluded.ended_ms, tries = tries + 1, error = excluded.error

-- name: add_warning
INSERT INTO warnings (run_id, kind, step_id, at_ms, message)
VALUES (:run_id, :kind, :step_id, :at_ms, :message)
ON CONFLICT (run_id, kind, step_id) DO NOTHING

-- name: timers_of_runs
SELECT run_id, step_id, kind, due_ms, key, condition, match_keys, match_values, job_id, attempt,
       unreached, payload
FROM timers
WHERE run_id IN (SELECT value FROM json_each(?)) AND kind NOT IN ('cancel', 'start', 'finish')

-- name: upsert_timer
INSERT INTO timers (run_id, step_id, kind, due_ms, key, condition, match_keys, match_values, job_id,
                    attempt, unreached, payload)
VALUES (:run_id, :step_id, :kind, :due_ms, :key, :condition, :match_keys, :match_values, :job_id,
        :attempt, :unreached, :payload)
ON CONFLICT (run_id, step_id) DO UPDATE
SET kind = excluded.kind, due_ms = excluded.due_ms, key = excluded.key,
    condition = excluded.condition, match_keys = excluded.match_keys,
    match_values = excluded.match_values, job_id = excluded.job_id, attempt = excluded.attempt,
    unreached = excluded.unreached, aside = NULL, turn_ms = NULL,
    payload = excluded.payload

-- name: delete_timer
DELETE FROM timers WHERE run_id = ? AND step_id = ?

-- name: delete_timers
DELETE FROM timers WHERE run_id = ?

-- name: due_calls
SELECT timers.run_id, step_id, kind, due_ms, domain, turns.turn_ms
FROM timers JOIN runs USING (run_id) LEFT JOIN turns USING (run_id)
WHERE kind != 'gateway' AND aside IS NULL AND due_ms <= ?
      AND kind NOT IN ('cancel', 'start', 'finish')
ORDER BY due_ms

-- name: due_of_runs
SELECT run_id, step_id, kind FROM timers
WHERE kind IN ('cancel', 'start', 'finish') AND due_ms <= ? ORDER BY due_ms LIMIT ?

-- name: postpone_cancel
UPDATE timers SET due_ms = :now_ms + :pause_ms
WHERE run_id = :run_id AND step_id = :step_id AND EXISTS (
    SELECT 1 FROM deliveries JOIN events USING (seq)
    WHERE deliveries.name = timers.key AND seq > timers.after_event
          AND received_ms < timers.due_ms)

-- name: postpone_finish
UPDATE timers SET due_ms = :now_ms + :longest_ms
WHERE run_id = :run_id AND step_id = :step_id AND payload IS NOT NULL

-- name: first_calls
DELETE FROM timers
WHERE step_id = '@start' AND run_id IN (SELECT value FROM json_each(?))

-- name: begin_finish
UPDATE timers SET due_ms = :now_ms + CAST(CAST(payload AS TEXT) AS INTEGER), payload = NULL
WHERE step_id = '@finish' AND payload IS NOT NULL
      AND run_id IN (SELECT value FROM json_each(:run_ids))

-- name: calls_due_before
SELECT run_id, step_id, kind FROM timers
WHERE kind IN ('resume', 'planned', 'racing') AND kind != 'gateway' AND aside IS NULL AND due_ms < ?1
UNION ALL SELECT run_id, step_id, kind FROM timers
WHERE kind IN ('resume', 'planned', 'racing') AND kind != 'gateway' AND aside < '~'
    AND due_ms < ?1

-- name: gates_due_before
-- By calls that were due before a time, and are not put aside.
SELECT gate, count(*) FROM timers JOIN run_gates USING (run_id)
WHERE kind IN ('resume', 'planned', 'racing') AND kind != 'gateway' AND aside IS NULL AND due_ms < ?1
GROUP BY gate

-- name: due_http_steps
SELECT run_id, step_id, kind, due_ms, domain, NULL FROM timers JOIN runs USING (run_id)
WHERE kind = 'gateway' AND aside IS NULL AND due_ms <= ? ORDER BY due_ms

-- name: set_aside
UPDATE timers SET aside = ?, turn_ms = ? WHERE run_id = ? AND step_id = ?

-- name: set_back
UPDATE timers SET aside = NULL, turn_ms = NULL WHERE run_id = ? AND step_id = ?

-- name: lanes_of_calls
WITH RECURSIVE lanes (origin) AS (
    SELECT min(aside) FROM timers WHERE aside < '~' AND kind != 'gateway'
    UNION ALL
    SELECT (SELECT min(aside) FROM timers
            WHERE kind != 'gateway' AND aside > lanes.origin AND aside < '~')
    FROM lanes WHERE lanes.origin IS NOT NULL
)
SELECT origin FROM lanes WHERE origin IS NOT NULL

-- name: lanes_of_http_steps
WITH RECURSIVE lanes (origin) AS (
    SELECT min(aside) FROM timers WHERE aside IS NOT NULL AND kind = 'gateway'
    UNION ALL
    SELECT (SELECT min(aside) FROM timers WHERE kind = 'gateway' AND aside > lanes.origin)
    FROM lanes WHERE lanes.origin IS NOT NULL
)
SELECT origin FROM lanes WHERE origin IS NOT NULL

-- name: lane_of_calls
SELECT run_id, step_id, kind, due_ms FROM timers
WHERE aside = ? AND kind != 'gateway' AND due_ms <= ? ORDER BY turn_ms

-- name: lane_of_http_steps
SELECT run_id, step_id, kind, due_ms FROM timers
WHERE aside = ? AND kind = 'gateway' AND due_ms <= ? ORDER BY due_ms

-- name: timers_aside
SELECT run_id, step_id, kind, aside FROM timers WHERE kind != 'gateway' AND aside < '~'
UNION ALL
SELECT run_id, step_id, kind, aside FROM timers WHERE kind = 'gateway' AND aside IS NOT NULL

-- name: count_aside
SELECT aside, count(*) FROM timers WHERE kind != 'gateway' AND aside < '~' GROUP BY aside

-- name: count_at_gates
SELECT substr(aside, 2, instr(aside, ' ') - 2), count(*) FROM timers
WHERE kind != 'gateway' AND aside >= '~' GROUP BY 1

-- name: lanes_of_gates
WITH RECURSIVE lanes (gate) AS (
    SELECT min(aside) FROM timers WHERE aside >= '~' AND kind != 'gateway'
    UNION ALL
    SELECT (SELECT min(aside) FROM timers WHERE kind != 'gateway' AND aside > lanes.gate)
    FROM lanes WHERE lanes.gate IS NOT NULL
)
SELECT gate FROM lanes WHERE gate IS NOT NULL

-- name: lane_of_gate
SELECT timers.run_id, step_id, kind, due_ms, domain, timers.turn_ms
FROM timers JOIN runs USING (run_id)
WHERE aside = ? AND kind != 'gateway' ORDER BY timers.turn_ms, timers.run_id, step_id

-- name: latest_run_id
SELECT max(run_id) FROM runs WHERE run_id >= :time AND run_id < :time || '~'

-- name: gates_of_run
SELECT name, place, rank, most, period_ms, burst, free_ns
FROM run_gates JOIN gates ON name = gate WHERE run_id = ? ORDER BY rank, place, name

-- name: free_ns_of_gate
SELECT free_ns FROM gates WHERE name = ?

-- name: first_calls_at_gate
SELECT count(*) FROM run_gates WHERE gate = ? AND first_call = 1

-- name: begin_first_call
UPDATE run_gates SET first_call = 1 WHERE run_id = ?

-- name: end_first_call
UPDATE run_gates SET first_call = 0 WHERE run_id = ? AND first_call = 1

-- name: save_gate
INSERT INTO gates (name, fn_id, place, rank, most, period_ms, burst, free_ns, shown)
VALUES (:name, :fn_id, :place, :rank, :most, :period_ms, :burst, 0, :shown)
ON CONFLICT (name) DO UPDATE
SET fn_id = excluded.fn_id, place = excluded.place, rank = excluded.rank, most = excluded.most,
    period_ms = excluded.period_ms, burst = excluded.burst

-- name: add_run_gate
INSERT INTO run_gates (run_id, gate) VALUES (?, ?) ON CONFLICT DO NOTHING

-- name: add_turn
INSERT INTO turns (run_id, turn_ms) VALUES (?, ?) ON CONFLICT DO NOTHING

-- name: end_turn
DELETE FROM turns WHERE run_id = ?

-- name: leave_gates
DELETE FROM run_gates WHERE run_id = ? RETURNING gate

-- name: leave_gate
DELETE FROM run_gates WHERE run_id = ? AND gate = ?

-- name: set_free
UPDATE gates SET free_ns = ? WHERE name = ?

-- name: forget_gate
DELETE FROM gates
WHERE name = :name AND (period_ms IS NULL OR free_ns <= :now_ns)
      AND NOT EXISTS (SELECT 1 FROM run_gates WHERE gate = :name)

-- name: forget_old_gates
DELETE FROM gates WHERE name IN (
    SELECT name FROM gates
    WHERE period_ms IS NOT NULL AND free_ns <= :now_ns
          AND NOT EXISTS (SELECT 1 FROM run_gates WHERE gate = gates.name)
    ORDER BY free_ns LIMIT :limit)

-- name: change_gates
-- Those of one limit: their names are its name, a space, and the value of its key.
UPDATE gates SET place = :place, rank = :rank, most = :most, period_ms = :period_ms, burst = :burst
WHERE name > :name || ' ' AND name < :name || '!' AND fn_id = :fn_id
      AND (place, rank, most, period_ms, burst) IS NOT (:place, :rank, :most, :period_ms, :burst)

-- name: gates_of_function
SELECT name FROM gates WHERE fn_id = ?

-- name: leave_lane
UPDATE timers SET aside = NULL, turn_ms = NULL
WHERE aside = :name AND kind != 'gateway'
      AND EXISTS (SELECT 1 FROM runs WHERE runs.run_id = timers.run_id AND fn_id = :fn_id)

-- name: open_gate
DELETE FROM run_gates
WHERE gate = :name
      AND EXISTS (SELECT 1 FROM runs WHERE runs.run_id = run_gates.run_id AND fn_id = :fn_id)

-- name: remove_gate
DELETE FROM gates
WHERE name = :name AND NOT EXISTS (SELECT 1 FROM run_gates WHERE gate = :name)

-- name: due_timers
SELECT run_id, step_id, kind, due_ms FROM timers
WHERE kind != 'gateway' AND aside IS NULL AND due_ms <= :now_ms
UNION ALL SELECT run_id, step_id, kind, due_ms FROM timers
WHERE kind = 'gateway' AND aside IS NULL AND due_ms <= :now_ms
UNION ALL SELECT run_id, step_id, kind, due_ms FROM timers
WHERE kind != 'gateway' AND aside < '~'
UNION ALL SELECT run_id, step_id, kind, due_ms FROM timers
WHERE kind = 'gateway' AND aside IS NOT NULL

-- name: next_due
SELECT min(due_ms) FROM (
    SELECT min(due_ms) AS due_ms FROM timers
    WHERE kind != 'gateway' AND aside IS NULL AND due_ms > ?1
    UNION ALL SELECT min(due_ms) FROM timers
    WHERE kind = 'gateway' AND aside IS NULL AND due_ms > ?1
)

-- name: overdue_runs
SELECT run_id FROM runs WHERE ended_ms IS NULL AND created_ms <= :before_ms
ORDER BY created_ms LIMIT :limit

-- name: oldest_open_run
SELECT min(created_ms) FROM runs WHERE ended_ms IS NULL

-- name: stream
SELECT writer, sent, last, size, outside, live, full, gone, response FROM streams WHERE run_id = ?

-- name: save_stream
INSERT INTO streams (run_id, writer, sent, last, size, outside, live, full, gone, touched_ms,
                     response)
VALUES (:run_id, :writer, :sent, :last, :size, :outside, :live, :full, :gone, :touched_ms,
        :response)
ON CONFLICT (run_id) DO UPDATE
SET writer = excluded.writer, sent = excluded.sent, last = excluded.last, size = excluded.size,
    outside = excluded.outside, live = excluded.live, full = excluded.full, gone = excluded.gone,
    touched_ms = excluded.touched_ms, response = excluded.response

-- name: insert_part
INSERT INTO stream_parts (run_id, seq, frames) VALUES (?, ?, ?)

-- name: parts_after
SELECT seq, frames FROM stream_parts WHERE run_id = ? AND seq > ? ORDER BY seq

-- name: run_status
SELECT status, sdk FROM runs WHERE run_id = ?

-- name: run_end
SELECT sdk, ended_ms, status, output, head, error FROM runs WHERE run_id = ?

-- name: old_streams
SELECT run_id FROM streams
WHERE gone = 0 AND touched_ms < :before_ms
      AND NOT EXISTS (SELECT 1 FROM runs
                      WHERE runs.run_id = streams.run_id
                            AND (ended_ms IS NULL OR ended_ms >= :before_ms))
LIMIT :limit

-- name: forget_parts
DELETE FROM stream_parts WHERE run_id = ?

-- name: forget_stream
UPDATE streams SET gone = 1, response = NULL, live = '{}' WHERE run_id = ?

-- name: forget_orphan
DELETE FROM streams WHERE run_id = ? AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.run_id = streams.run_id)

-- name: run_tables
SELECT tables.name
FROM sqlite_master AS tables JOIN pragma_table_info(tables.name) AS columns
WHERE tables.type = 'table' AND columns.name = 'run_id'
ORDER BY tables.name = 'runs'

-- name: runs_to_purge
SELECT run_id, fn_id FROM runs WHERE ended_ms < :before_ms ORDER BY ended_ms LIMIT :limit

-- name: purge_endpoint
DELETE FROM endpoints
WHERE fn_id = :fn_id AND fn = ''
      AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.fn_id = endpoints.fn_id)

-- name: purge_endpoint_counts
DELETE FROM counts
WHERE width_s = 0 AND start_s = 0 AND fn_id = :fn_id
      AND NOT EXISTS (SELECT 1 FROM endpoints WHERE endpoints.fn_id = counts.fn_id)

-- name: forget_uncounted_endpoint
DELETE FROM endpoints
WHERE fn_id = :fn_id
      AND NOT EXISTS (SELECT 1 FROM counts
                      WHERE width_s = 0 AND start_s = 0 AND counts.fn_id = endpoints.fn_id)

-- name: forget_empty_counts
DELETE FROM counts
WHERE width_s = ? AND start_s = ? AND fn_id = ? AND what = ? AND bucket = ? AND n <= 0

-- name: purge_events
DELETE FROM events WHERE seq IN (
    -- Only the oldest are looked at, whatever their time is.
    SELECT seq FROM (SELECT seq, received_ms FROM events ORDER BY seq LIMIT :limit)
    WHERE received_ms < :before_ms
          -- The last one stays, so that no number is given twice: waits refer to numbers.
          AND seq < (SELECT max(seq) FROM events)
          AND seq NOT IN (SELECT seq FROM deliveries) AND seq NOT IN (SELECT seq FROM backlog))

-- name: purge_cancellations
DELETE FROM cancellations WHERE started_before_ms < ?

-- name: meta_value
SELECT value FROM meta WHERE key = ?

-- name: set_meta_value
INSERT INTO meta (key, value) VALUES (?, ?)
ON CONFLICT (key) DO UPDATE SET value = excluded.value

-- name: delete_lease
DELETE FROM timers WHERE run_id = ? AND step_id = '@lease'

-- name: renew_leases
UPDATE timers SET kind = 'lease', due_ms = max(due_ms, :due_ms), unreached = 0, aside = NULL, turn_ms = NULL
WHERE step_id = '@lease' AND run_id IN (SELECT value FROM json_each(:run_ids))
RETURNING run_id

-- name: extend_all_leases
UPDATE timers SET kind = 'lease', due_ms = max(due_ms, :now_ms + (:longest_ms >> unreached)),
    unreached = min(unreached + 1, 30), aside = NULL, turn_ms = NULL
WHERE step_id = '@lease'

-- name: digests
SELECT run_id, digest FROM runs WHERE run_id IN (SELECT value FROM json_each(?))

-- name: forget_keys
DELETE FROM idempotency WHERE expires_ms <= ?

-- name: known_key
SELECT request, run_id FROM idempotency JOIN runs USING (run_id) WHERE key = ?

-- name: insert_key
INSERT INTO idempotency (key, request, run_id, expires_ms) VALUES (?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE
SET request = excluded.request, run_id = excluded.run_id, expires_ms = excluded.expires_ms
WHERE NOT EXISTS (SELECT 1 FROM runs WHERE runs.run_id = idempotency.run_id)

-- name: displace_wait
UPDATE timers SET key = NULL WHERE run_id = ? AND step_id = ?

-- name: waits_for
SELECT run_id, step_id, condition FROM timers
WHERE kind = ? AND key = ? AND due_ms > ?

-- name: open_wait
UPDATE timers SET after_event = (SELECT coalesce(max(seq), 0) FROM events)
WHERE run_id = ? AND step_id = ? AND after_event IS NULL

-- name: match_keys
-- Steps from one to the next by the index, however many waits share them.
WITH RECURSIVE found (keys) AS (
    SELECT min(match_keys) FROM timers
    WHERE key = :name AND kind = :kind AND match_keys > ''
    UNION ALL
    SELECT (SELECT min(match_keys) FROM timers
            WHERE key = :name AND kind = :kind AND match_keys > found.keys)
    FROM found WHERE found.keys IS NOT NULL
)
SELECT keys FROM found WHERE keys IS NOT NULL LIMIT :limit

-- name: event_waits
SELECT run_id, step_id, condition FROM timers
WHERE key = :name AND kind = :kind AND match_keys IS :keys AND match_values IS :values
      AND (run_id, step_id) > (:run_id, :step_id) AND due_ms > :received_ms
      AND (after_event < :seq OR after_event IS NULL)
ORDER BY run_id, step_id LIMIT :limit

-- name: event_wait
SELECT condition FROM timers
WHERE run_id = :run_id AND step_id = :step_id AND kind IN ('event', 'cancel') AND key = :name
      AND due_ms > :received_ms AND after_event < :seq

-- name: add_delivery
INSERT INTO deliveries (seq, name) VALUES (?, ?)

-- name: end_delivery
DELETE FROM deliveries WHERE seq = ?

-- name: awaiting
SELECT EXISTS (SELECT 1 FROM deliveries WHERE name = ?1),
       EXISTS (SELECT 1 FROM timers WHERE key = ?1 AND kind = 'event'),
       EXISTS (SELECT 1 FROM timers WHERE key = ?1 AND kind = 'cancel')

-- name: next_delivery
SELECT seq, event_id, name, received_ms, body FROM events
WHERE seq = (SELECT min(seq) FROM deliveries)

-- name: add_catch_up
INSERT INTO catch_ups (run_id, step_id, since_ms) VALUES (?, ?, ?)
ON CONFLICT DO NOTHING

-- name: end_catch_up
DELETE FROM catch_ups WHERE run_id = ? AND step_id = ?

-- name: next_catch_up
SELECT catch_ups.run_id, catch_ups.step_id, since_ms, key, condition, coalesce(after_event, 0)
FROM catch_ups LEFT JOIN timers ON timers.run_id = catch_ups.run_id
     AND timers.step_id = catch_ups.step_id AND kind = 'event'
LIMIT 1

-- name: is_open_wait
SELECT EXISTS (SELECT 1 FROM timers
               WHERE run_id = ? AND step_id = ? AND kind = 'event' AND key = ?)

-- name: postpone_waits
UPDATE timers SET due_ms = :now_ms + :pause_ms, aside = NULL, turn_ms = NULL
WHERE run_id = :run_id AND kind = 'event' AND due_ms <= :now_ms AND (
    EXISTS (SELECT 1 FROM catch_ups
            WHERE catch_ups.run_id = timers.run_id AND catch_ups.step_id = timers.step_id)
    OR EXISTS (SELECT 1 FROM deliveries JOIN events USING (seq)
               WHERE deliveries.name = timers.key AND seq > timers.after_event
                     AND received_ms < timers.due_ms))

-- name: undelivered
SELECT (SELECT count(*) FROM deliveries), (SELECT count(*) FROM catch_ups),
       (SELECT count(*) FROM backlog)

-- name: add_to_backlog
INSERT INTO backlog (seq, name) VALUES (?, ?)

-- name: is_in_backlog
SELECT EXISTS (SELECT 1 FROM backlog WHERE name = ?)

-- name: backlog
SELECT seq, event_id, events.name, dedupe, received_ms, ts, body
FROM backlog JOIN events USING (seq) ORDER BY seq LIMIT ?

-- name: remove_from_backlog
DELETE FROM backlog WHERE seq = ?

-- name: is_listened_to
SELECT EXISTS (SELECT 1 FROM listeners JOIN functions USING (fn_id)
               WHERE listeners.name = ? AND present)

-- name: upsert_endpoint
INSERT INTO endpoints (fn_id, app_id, slug, event_name, fn, domain, method, path, sdk, retries,
                       request_version, reads_state, seen_ms)
VALUES (:fn_id, :app_id, :slug, :event_name, :fn, :domain, :method, :path, :sdk, :retries,
        :request_version, :reads_state, :created_ms)
ON CONFLICT (fn_id) DO UPDATE
SET event_name = excluded.event_name, method = excluded.method, path = excluded.path,
    sdk = excluded.sdk, retries = excluded.retries,
    request_version = excluded.request_version, reads_state = excluded.reads_state,
    seen_ms = excluded.seen_ms

-- name: first_phase_name
SELECT fn_id, retries, created_ms FROM runs WHERE run_id = ? AND status = 'sync'

-- name: rename_run
UPDATE runs SET fn_id = :fn_id, slug = :slug, fn = :fn, retries = :retries WHERE run_id = :run_id

-- name: latest_endpoints
SELECT fn_id, domain, slug FROM endpoints ORDER BY seen_ms DESC LIMIT ?

-- name: sdk_of_origin
SELECT sdk FROM endpoints WHERE domain IN (:origin, :origin || '/') ORDER BY seen_ms DESC LIMIT 1

-- name: open_run_counts
SELECT fn_id, status, count(*) FROM runs WHERE ended_ms IS NULL GROUP BY fn_id, status

-- name: wait_counts
SELECT kind, count(*) FROM timers WHERE key IS NOT NULL AND kind != 'cancel' GROUP BY kind

-- name: endpoint
SELECT endpoints.app_id, fn_id, slug, event_name, fn, domain, method, path, sdk, retries,
       request_version, reads_state, query, refused
FROM endpoints LEFT JOIN functions USING (fn_id)
WHERE (fn_id = :id OR slug = :id) AND present IS NOT 0
ORDER BY endpoints.app_id = coalesce(:app_id, (SELECT app_id FROM runs WHERE run_id = :run_id)) DESC,
         seen_ms DESC
LIMIT 1

-- name: endpoint_of_app
SELECT app_id, fn_id, slug, event_name, fn, domain, method, path, sdk, retries, request_version,
       reads_state
FROM endpoints WHERE (fn_id = :id OR slug = :id) AND (app_id = :app OR domain = :app) LIMIT 1

-- name: insert_event
INSERT INTO events (event_id, name, dedupe, repeated, received_ms, ts, internal, body)
VALUES (:event_id, :name, :dedupe,
        :dedupe IS NOT NULL AND EXISTS (SELECT 1 FROM events WHERE dedupe = :dedupe
                                        AND received_ms > :dedupe_from_ms AND NOT repeated),
        :received_ms, :ts, :internal, :body)
ON CONFLICT (event_id) DO NOTHING
RETURNING repeated, seq

-- name: events_before
-- Without those that have ended a wait of this run, unless the call that opens the wait does not
-- know that yet: a handler that waits twice, one after the other, wants two events.
SELECT seq, event_id, received_ms, body FROM events
WHERE name = :name AND received_ms >= :since_ms AND NOT repeated AND seq <= :until_seq
      AND (received_ms, seq) > (:after_ms, :after_seq)
      AND NOT EXISTS (SELECT 1 FROM links
                      WHERE links.run_id = :run_id AND links.event_id = events.event_id AND received
                            AND NOT EXISTS (SELECT 1 FROM timers
                                            WHERE timers.run_id = links.run_id
                                                  AND timers.step_id = links.step_id
                                                  AND kind = 'wake'))
ORDER BY received_ms, seq LIMIT :limit

-- name: events_sent
SELECT seq, event_id, received_ms, body FROM events
WHERE event_id IN (SELECT value FROM json_each(:ids)) AND name = :name AND NOT repeated
ORDER BY seq

-- name: event_view
SELECT event_id, received_ms, body FROM events WHERE event_id = ?

-- name: event_list
SELECT event_id, received_ms, body FROM events
WHERE seq < coalesce((SELECT seq FROM events WHERE event_id = :cursor), 9223372036854775807)
      AND (:name IS NULL OR name = :name) AND NOT internal
      AND received_ms > coalesce(:after_ms, -1)
      AND received_ms < coalesce(:before_ms, 9223372036854775807)
ORDER BY seq DESC LIMIT :limit

-- name: run_jobs
SELECT timers.due_ms, timers.kind, timers.step_id, runs.attempt
FROM timers JOIN runs USING (run_id)
WHERE run_id = ? AND kind NOT IN ('cancel', 'start', 'finish')
ORDER BY timers.due_ms, timers.step_id

-- name: insert_cancellation
INSERT INTO cancellations (cancellation_id, app_id, fn_id, function, started_after_ms,
                           started_before_ms, condition, created_ms)
VALUES (:cancellation_id, :app_id, :fn_id, :function, :started_after_ms, :started_before_ms,
        :condition, :created_ms)

-- name: cancellations
SELECT cancellation_id, app_id, function, started_after_ms, started_before_ms, condition,
       created_ms
FROM cancellations ORDER BY seq DESC

-- name: delete_cancellation
DELETE FROM cancellations WHERE cancellation_id = ?

-- name: cancellations_for
SELECT condition FROM cancellations JOIN runs USING (fn_id)
WHERE run_id = ? AND started_before_ms > runs.created_ms
      AND (started_after_ms IS NULL OR started_after_ms <= runs.created_ms)

-- name: runs_to_cancel
SELECT run_id FROM runs
WHERE fn_id = :fn_id AND status = 'async' AND created_ms < :started_before_ms
      AND (:started_after_ms IS NULL OR created_ms >= :started_after_ms)
ORDER BY created_ms, seq

-- name: add_link
INSERT INTO links (run_id, event_id, step_id, received) VALUES (?, ?, ?, ?)
ON CONFLICT DO NOTHING

-- name: add_counts
INSERT INTO counts (width_s, start_s, fn_id, what, bucket, n) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (width_s, start_s, fn_id, what, bucket) DO UPDATE SET n = n + excluded.n

-- name: purge_counts
DELETE FROM counts WHERE width_s = ? AND start_s < ?

-- name: add_function_run
INSERT INTO function_runs (run_id, events) VALUES (?, ?)

-- name: events_of_run
SELECT events FROM function_runs WHERE run_id = ?

-- name: function
SELECT endpoints.app_id, fn_id, slug, event_name, fn, domain, method, path, sdk, retries,
       request_version, reads_state, query, refused, functions.name, triggers, config, options,
       paused
FROM functions JOIN endpoints USING (fn_id)
WHERE (fn_id = :id OR slug = :id) AND present
ORDER BY seen_ms DESC LIMIT 1

-- name: any_function
SELECT endpoints.app_id, fn_id, slug, event_name, fn, domain, method, path, sdk, retries,
       request_version, reads_state, query, refused, functions.name, triggers, config, options,
       paused, present
FROM functions JOIN endpoints USING (fn_id)
WHERE fn_id = :id OR slug = :id
ORDER BY present DESC, seen_ms DESC LIMIT 1

-- name: forget_listeners
DELETE FROM listeners WHERE fn_id = ?

-- name: add_listener
INSERT INTO listeners (name, fn_id) VALUES (?, ?)

-- name: function_that_ended
SELECT slug, events FROM runs JOIN function_runs USING (run_id) WHERE run_id = ?

-- name: see_function
UPDATE endpoints SET seen_ms = :created_ms WHERE fn_id = :fn_id

-- name: known_app
SELECT digest FROM apps WHERE app_id = ?

-- name: forget_other_apps
DELETE FROM apps WHERE url = :url AND app_id != :app_id

-- name: save_app
INSERT INTO apps (app_id, name, url, sdk, framework, digest, synced_ms)
VALUES (:app_id, :name, :url, :sdk, :framework, :digest, :synced_ms)
ON CONFLICT (app_id) DO UPDATE
SET url = excluded.url, sdk = excluded.sdk, framework = excluded.framework,
    digest = excluded.digest, synced_ms = excluded.synced_ms

-- name: remove_app
DELETE FROM apps WHERE url = ?

-- name: withdraw_functions
UPDATE functions SET present = 0
WHERE present AND NOT EXISTS (SELECT 1 FROM apps WHERE apps.app_id = functions.app_id)

-- name: withdraw_functions_of
UPDATE functions SET present = 0 WHERE app_id = ?

-- name: save_function
INSERT INTO functions (fn_id, app_id, name, query, present, refused, triggers, options, config)
VALUES (:fn_id, :app_id, :name, :query, 1, :refused, :triggers, :options, :config)
ON CONFLICT (fn_id) DO UPDATE
SET name = excluded.name, query = excluded.query, present = 1, refused = excluded.refused,
    triggers = excluded.triggers, options = excluded.options, config = excluded.config

-- name: pause_function
UPDATE functions SET paused = ? WHERE fn_id = ?

-- name: save_function_endpoint
INSERT INTO endpoints (fn_id, app_id, slug, event_name, fn, domain, method, path, sdk, retries,
                       request_version, reads_state, seen_ms)
VALUES (:fn_id, :app_id, :slug, '', :slug, :domain, 'POST', :path, :sdk, :retries, -1, 0, :now_ms)
ON CONFLICT (fn_id) DO UPDATE
SET domain = excluded.domain, path = excluded.path, sdk = excluded.sdk, retries = excluded.retries

-- name: move_function_runs
UPDATE runs SET domain = :domain, path = :path, query = :query, sdk = :sdk
WHERE fn_id = :fn_id AND status = 'async'

-- name: functions
SELECT endpoints.app_id, fn_id, slug, event_name, fn, domain, method, path, endpoints.sdk, retries,
       request_version, reads_state, query, refused, functions.name, triggers, config, options,
       paused
FROM functions JOIN endpoints USING (fn_id)
WHERE present ORDER BY slug

-- name: apps
SELECT app_id, name, url, sdk, framework, synced_ms FROM apps ORDER BY name

-- name: rate
SELECT free_ns FROM rates WHERE name = ?

-- name: save_rate
INSERT INTO rates (name, free_ns) VALUES (?, ?)
ON CONFLICT (name) DO UPDATE SET free_ns = excluded.free_ns

-- name: forget_rates
DELETE FROM rates
WHERE name IN (SELECT name FROM rates WHERE free_ns <= ? ORDER BY free_ns LIMIT ?)

-- name: open_singleton
SELECT run_id FROM singletons JOIN runs USING (run_id)
WHERE singletons.name = ? AND ended_ms IS NULL

-- name: save_singleton
INSERT INTO singletons (name, run_id) VALUES (?, ?)
ON CONFLICT (name) DO UPDATE SET run_id = excluded.run_id

-- name: add_held_start
INSERT INTO held_starts (name, hold, fn_id, shown, came, size, opened_ms, due_ms)
VALUES (:name, :hold, :fn_id, :shown, :came, :size, :now_ms, :now_ms)
ON CONFLICT (name) DO UPDATE SET came = came + excluded.came, size = size + excluded.size,
    opened_ms = min(opened_ms, excluded.opened_ms) -- it is later if the clock was set back
RETURNING held, opened_ms, came, size

-- name: move_held_start
UPDATE held_starts SET due_ms = ?, size = ? WHERE held = ?

-- name: add_held_event
INSERT INTO held_events (held, event_id, name, ts, body) VALUES (?, ?, ?, ?, ?)

-- name: add_held_invoker
INSERT INTO held_invokers (held, invoked_by) VALUES (?, ?)
ON CONFLICT DO NOTHING

-- name: keep_latest_event
DELETE FROM held_events
WHERE held = :held AND seq < (SELECT max(seq) FROM held_events WHERE held = :held)

-- name: held_events
SELECT event_id, name, ts, body FROM held_events WHERE held = ? ORDER BY seq

-- name: held_invokers
SELECT invoked_by FROM held_invokers WHERE held = ? ORDER BY invoked_by

-- name: forget_held_events
DELETE FROM held_events WHERE held = ?

-- name: forget_held_invokers
DELETE FROM held_invokers WHERE held = ?

-- name: forget_held_start
DELETE FROM held_starts WHERE held = ?

-- name: due_held_starts
SELECT held_starts.held, hold, fn_id, came, size, event_id, held_events.name, ts, body
FROM held_starts JOIN held_events
     ON held_events.seq = (SELECT max(seq) FROM held_events
                           WHERE held_events.held = held_starts.held)
WHERE due_ms <= ? ORDER BY due_ms, held_starts.held LIMIT ?

-- name: next_held_start
SELECT min(due_ms) FROM held_starts WHERE due_ms > ?

-- name: is_held_start
SELECT 1 FROM held_starts WHERE held = ? AND came = ? AND due_ms <= ?

-- name: await_run
UPDATE timers SET key = ? WHERE run_id = ? AND step_id = ? AND kind = 'invoke'

-- name: add_invoker
INSERT INTO invokers (run_id, invoked_by) VALUES (?, ?)
ON CONFLICT DO NOTHING

-- name: invokers
SELECT invoked_by FROM invokers WHERE run_id = ? ORDER BY invoked_by

-- name: schedules
SELECT fn_id, place, cron, jitter_ms, time_ms, due_ms, set_ms FROM schedules
ORDER BY fn_id, place

-- name: due_schedules
SELECT fn_id, place, cron, jitter_ms, time_ms, due_ms, set_ms FROM schedules
WHERE due_ms <= ? ORDER BY due_ms, fn_id, place LIMIT ?

-- name: schedules_set_after
SELECT fn_id, place, cron, jitter_ms, time_ms, due_ms, set_ms FROM schedules WHERE set_ms > ?

-- name: next_schedule
SELECT min(due_ms) FROM schedules

-- name: next_starts
SELECT fn_id, place, due_ms FROM schedules JOIN functions USING (fn_id) WHERE NOT paused

-- name: save_schedule
INSERT INTO schedules (fn_id, place, cron, jitter_ms, time_ms, due_ms, set_ms)
VALUES (:fn_id, :place, :cron, :jitter_ms, :time_ms, :due_ms, :set_ms)
ON CONFLICT (fn_id, place) DO UPDATE
SET cron = excluded.cron, jitter_ms = excluded.jitter_ms, time_ms = excluded.time_ms,
    due_ms = excluded.due_ms, set_ms = excluded.set_ms

-- name: delete_schedule
DELETE FROM schedules WHERE fn_id = ? AND place = ?

-- name: run_metadata
SELECT run_metadata.step_id, attempt, span_id, coalesce(userland_id, name), kind, set_ms, "values"
FROM run_metadata LEFT JOIN steps USING (run_id, step_id) WHERE run_id = ?
ORDER BY run_metadata.step_id <> '', steps.seq IS NULL, steps.seq, run_metadata.step_id, attempt,
         span_id, kind

-- name: metadata_values
SELECT "values" FROM run_metadata
WHERE run_id = ? AND step_id = ? AND attempt = ? AND span_id = ? AND kind = ?

-- name: metadata_size
SELECT count(*), coalesce(sum(length("values")), 0) FROM run_metadata WHERE run_id = ?

-- name: save_metadata
INSERT INTO run_metadata (run_id, step_id, attempt, span_id, kind, set_ms, "values")
VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (run_id, step_id, attempt, span_id, kind) DO UPDATE
SET set_ms = excluded.set_ms, "values" = excluded."values"
