-- The rules of schema.sql, each as a query for what breaks it: where (a run, with a step), and
-- what was found there. `stephttp check-db` runs them, and so does the tests' harness.

-- name: an async run has at least one timer that is not of the run as a whole
SELECT run_id, status FROM runs
WHERE status = 'async' AND NOT EXISTS (SELECT 1 FROM timers
                                       WHERE timers.run_id = runs.run_id
                                             AND kind NOT IN ('cancel', 'start', 'finish'))

-- name: only async runs have timers, but for the lease of a sync one
SELECT timers.run_id || ' ' || step_id, coalesce(runs.status, 'no such run')
FROM timers LEFT JOIN runs USING (run_id)
WHERE (runs.status IS NOT 'async' OR timers.kind IN ('lease', 'orphan'))
      AND (runs.status IS NOT 'sync' OR timers.step_id <> '@lease'
           OR timers.kind NOT IN ('lease', 'orphan'))

-- name: a step of an async run that waits has a timer
SELECT run_id || ' ' || step_id, op FROM steps JOIN runs USING (run_id)
WHERE status = 'async' AND memo IS NULL
      AND op IN ('Sleep', 'WaitForEvent', 'WaitForSignal', 'InvokeFunction', 'Gateway',
                 'AIGateway', 'StepPlanned')
      AND NOT EXISTS (SELECT 1 FROM timers
                      WHERE timers.run_id = steps.run_id AND timers.step_id = steps.step_id)

-- name: an idempotency key belongs to a run
SELECT hex(key), 'no such run' FROM idempotency
WHERE NOT EXISTS (SELECT 1 FROM runs WHERE runs.run_id = idempotency.run_id)

-- name: a step belongs to a run
SELECT run_id || ' ' || step_id, 'no such run' FROM steps
WHERE NOT EXISTS (SELECT 1 FROM runs WHERE runs.run_id = steps.run_id)

-- name: a span belongs to a run, and its details are JSON
SELECT run_id || ' ' || hex(span_id), name FROM spans
WHERE NOT EXISTS (SELECT 1 FROM runs WHERE runs.run_id = spans.run_id)
      OR NOT json_valid(CAST(details AS TEXT))

-- name: a timer of a step belongs to a step that is not over (over, if it is a wake)
SELECT timers.run_id || ' ' || timers.step_id,
       timers.kind || CASE WHEN steps.step_id IS NULL THEN ': no such step' ELSE ': memo' END
FROM timers LEFT JOIN steps USING (run_id, step_id)
WHERE timers.step_id NOT IN ('', '@lease') AND timers.kind NOT IN ('cancel', 'start', 'finish')
      AND (steps.step_id IS NULL OR (steps.memo IS NULL) = (timers.kind = 'wake'))

-- name: a run has an end exactly if it has ended
SELECT run_id, status FROM runs
WHERE (ended_ms IS NULL) <> (status IN ('sync', 'async'))

-- name: a run has the length of its first phase exactly if that is over
SELECT run_id, status FROM runs
WHERE (first_ns IS NULL) <> (status = 'sync')

-- name: a run that is async has the time when it became so
SELECT run_id, status FROM runs WHERE status = 'async' AND async_ms IS NULL

-- name: a delivery is one of a stored event
SELECT deliveries.seq, deliveries.name FROM deliveries
WHERE NOT EXISTS (SELECT 1 FROM events
                  WHERE events.seq = deliveries.seq AND events.name = deliveries.name)

-- name: what an event ends knows which events were there before
SELECT run_id || ' ' || step_id, key FROM timers
WHERE kind IN ('event', 'cancel') AND after_event IS NULL

-- name: an event in the backlog is stored
SELECT backlog.seq, backlog.name FROM backlog
WHERE NOT EXISTS (SELECT 1 FROM events
                  WHERE events.seq = backlog.seq AND events.name = backlog.name)

-- name: links belong to a run
SELECT run_id || ' ' || event_id, 'no such run' FROM links
WHERE NOT EXISTS (SELECT 1 FROM runs WHERE runs.run_id = links.run_id)

-- name: warnings belong to a run
SELECT run_id || ' ' || kind, 'no such run' FROM warnings
WHERE NOT EXISTS (SELECT 1 FROM runs WHERE runs.run_id = warnings.run_id)

-- name: history belongs to a run
SELECT run_id || ' ' || kind, 'no such run' FROM history
WHERE NOT EXISTS (SELECT 1 FROM runs WHERE runs.run_id = history.run_id)

-- name: a run counts its steps
SELECT run_id, step_count || ' counted, ' || found || ' found' FROM (
    SELECT run_id, step_count,
           (SELECT count(*) FROM steps
            WHERE steps.run_id = runs.run_id AND seq > 0) AS found
    FROM runs)
WHERE step_count <> found

-- name: memos and errors of steps are JSON
SELECT run_id || ' ' || step_id, 'memo or error' FROM steps
WHERE NOT (json_valid(CAST(coalesce(memo, 'null') AS TEXT))
           AND json_valid(CAST(coalesce(error, 'null') AS TEXT)))

-- name: errors and heads of runs are JSON
SELECT run_id, 'error or head' FROM runs
WHERE NOT (json_valid(CAST(coalesce(error, 'null') AS TEXT))
           AND json_valid(CAST(coalesce(head, 'null') AS TEXT)))

-- name: a run of another status than failed has no error
SELECT run_id, status FROM runs WHERE error IS NOT NULL AND status <> 'failed'

-- name: there is a secret of 32 bytes
SELECT 'meta', count(*) FROM meta WHERE key = 'secret' AND length(value) = 32
HAVING count(*) <> 1

-- name: a part belongs to a stream that is not gone, and is not beyond its end
SELECT stream_parts.run_id || ' ' || seq, coalesce(gone, 'no such stream')
FROM stream_parts LEFT JOIN streams USING (run_id)
WHERE gone IS NOT 0 OR seq > last

-- name: a function has an endpoint, and an app if it is present
SELECT functions.fn_id, name FROM functions
WHERE NOT EXISTS (SELECT 1 FROM endpoints WHERE endpoints.fn_id = functions.fn_id)
      OR (present AND NOT EXISTS (SELECT 1 FROM apps WHERE apps.app_id = functions.app_id))

-- name: events that started a function belong to a run, and are an array
SELECT run_id, 'no such run, or no array' FROM function_runs
WHERE NOT EXISTS (SELECT 1 FROM runs WHERE runs.run_id = function_runs.run_id)
      OR json_type(CAST(events AS TEXT)) IS NOT 'array'

-- name: a singleton is a run
SELECT name, 'no such run' FROM singletons
WHERE NOT EXISTS (SELECT 1 FROM runs WHERE runs.run_id = singletons.run_id)

-- name: a run that is awaited by several is known, and is awaited by another one
SELECT run_id, invoked_by FROM invokers
WHERE NOT EXISTS (SELECT 1 FROM runs
                  WHERE runs.run_id = invokers.run_id AND runs.invoked_by <> invokers.invoked_by)

-- name: a held start has events, all of a batch and the latest of a debounce
SELECT held_starts.held, hold || ': ' || came || ' came, ' || count(held_events.seq) || ' held'
FROM held_starts LEFT JOIN held_events USING (held) GROUP BY held_starts.held
HAVING count(held_events.seq) <> CASE hold WHEN 'batch' THEN came ELSE 1 END

-- name: held events and invokers belong to a held start
SELECT parts.held, 'no such start'
FROM (SELECT held FROM held_events UNION SELECT held FROM held_invokers) AS parts
WHERE NOT EXISTS (SELECT 1 FROM held_starts WHERE held_starts.held = parts.held)

-- name: a run that has to pass gates, or has a turn, is open
SELECT run_id, gate FROM run_gates
WHERE NOT EXISTS (SELECT 1 FROM runs WHERE runs.run_id = run_gates.run_id AND ended_ms IS NULL)
UNION ALL SELECT run_id, 'turn' FROM turns
WHERE NOT EXISTS (SELECT 1 FROM runs WHERE runs.run_id = turns.run_id AND ended_ms IS NULL)

-- name: a run that has to pass gates has a turn, and the gates are there
SELECT run_id, gate FROM run_gates
WHERE NOT EXISTS (SELECT 1 FROM turns WHERE turns.run_id = run_gates.run_id)
      OR NOT EXISTS (SELECT 1 FROM gates WHERE gates.name = run_gates.gate)

-- name: a run takes a place with its first call only in its first phase
SELECT run_id, gate FROM run_gates
WHERE first_call = 1
      AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.run_id = run_gates.run_id AND status = 'sync')

-- name: a gate has runs, or says when the next one may start
SELECT name, fn_id FROM gates
WHERE period_ms IS NULL AND NOT EXISTS (SELECT 1 FROM run_gates WHERE run_gates.gate = gates.name)

-- name: a timer that is set aside has its place there, and one at a gate has to pass it
SELECT run_id || ' ' || step_id, aside FROM timers
WHERE (aside IS NULL) <> (turn_ms IS NULL)
      OR (aside >= '~' AND NOT EXISTS (SELECT 1 FROM run_gates
                                       WHERE run_gates.run_id = timers.run_id
                                             AND run_gates.gate = timers.aside))

-- name: a schedule is of a function that is present and can be started
SELECT fn_id || ' ' || place, cron FROM schedules
WHERE NOT EXISTS (SELECT 1 FROM functions
                  WHERE functions.fn_id = schedules.fn_id AND present AND refused IS NULL)

-- name: metadata belongs to a run, and is an object
SELECT run_id || ' ' || kind, 'no such run, or no object' FROM run_metadata
WHERE NOT EXISTS (SELECT 1 FROM runs WHERE runs.run_id = run_metadata.run_id)
      OR json_type(CAST("values" AS TEXT)) IS NOT 'object'
