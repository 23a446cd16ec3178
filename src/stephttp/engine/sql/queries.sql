-- Every statement that the engine runs while it works. See schema.sql for what it means.

-- name: insert_run
INSERT INTO runs (run_id, status, retries, request_version, job_id, attempt, unreached, idle,
                  step_count, last_error, created_ms, ended_ms, app_id, fn_id, slug, digest,
                  event_id, event_name, event_ts, fn, domain, method, path, query, content_type,
                  ip, sdk, error, head, body, output)
VALUES (:run_id, :status, :retries, :request_version, :job_id, :attempt, :unreached, :idle,
        :step_count, :last_error, :created_ms, :ended_ms, :app_id, :fn_id, :slug, :digest,
        :event_id, :event_name, :event_ts, :fn, :domain, :method, :path, :query, :content_type,
        :ip, :sdk, :error, :head, :body, :output)
ON CONFLICT (run_id) DO NOTHING

-- name: update_run
UPDATE runs
SET status = :status, request_version = :request_version, job_id = :job_id, attempt = :attempt,
    unreached = :unreached, idle = :idle, step_count = :step_count, last_error = :last_error
WHERE run_id = :run_id

-- name: end_run
UPDATE runs
SET ended_ms = :ended_ms, error = :error, head = :head, output = :output
WHERE run_id = :run_id

-- name: run_state
SELECT run_id, status, retries, request_version, job_id, attempt, unreached, idle, step_count,
       last_error, ended_ms
FROM runs WHERE run_id = ?

-- name: run_digest
SELECT digest FROM runs WHERE run_id = ?

-- name: run_output
SELECT status, output, head, error FROM runs WHERE run_id = ?

-- name: run_call
SELECT run_id, job_id, attempt, request_version, event_name, domain, method, path, query,
       content_type, coalesce(body, x'')
FROM runs WHERE run_id = ?

-- name: run_event
SELECT status, event_id, event_name, event_ts, domain, method, path, query, content_type, ip, fn,
       body
FROM runs WHERE run_id = ?

-- name: run_view
SELECT run_id, created_ms, fn_id, event_id, status, ended_ms, output, slug, attempt, last_error,
       error
FROM runs WHERE run_id = ?

-- name: run_list
SELECT run_id, status, slug, created_ms, ended_ms, attempt, last_error, error
FROM runs
WHERE seq < coalesce((SELECT seq FROM runs WHERE run_id = :cursor), 9223372036854775807)
ORDER BY seq DESC LIMIT :limit

-- name: run_waits
SELECT timers.kind, timers.step_id, steps.userland_id, timers.due_ms
FROM timers LEFT JOIN steps USING (run_id, step_id)
WHERE timers.run_id = ? ORDER BY timers.due_ms LIMIT 10

-- name: upsert_step
INSERT INTO steps (run_id, step_id, seq, userland_id, userland_index, name, op, attempts,
                   started_ns, duration_ns, error, memo)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (run_id, step_id) DO UPDATE
SET op = excluded.op, attempts = excluded.attempts, started_ns = excluded.started_ns,
    duration_ns = excluded.duration_ns, error = excluded.error, memo = excluded.memo

-- name: resolve_step
UPDATE steps SET memo = :memo, duration_ns = max(0, :now_ns - started_ns)
WHERE run_id = :run_id AND step_id = :step_id

-- name: known_step
SELECT attempts, memo IS NOT NULL FROM steps WHERE run_id = ? AND step_id = ?

-- name: memos
SELECT step_id, memo FROM steps WHERE run_id = ? AND memo IS NOT NULL ORDER BY step_id

-- name: pending_steps
SELECT steps.step_id FROM steps JOIN timers USING (run_id, step_id)
WHERE run_id = ? AND steps.memo IS NULL

-- name: step_list
SELECT step_id, userland_id, userland_index, name, op, attempts, started_ns, duration_ns, error,
       memo IS NOT NULL, timers.due_ms
FROM steps LEFT JOIN timers USING (run_id, step_id)
WHERE run_id = ? ORDER BY seq

-- name: timers_of_run
SELECT step_id, kind, due_ms FROM timers WHERE run_id = ?

-- name: upsert_timer
INSERT INTO timers (run_id, step_id, kind, due_ms) VALUES (?, ?, ?, ?)
ON CONFLICT (run_id, step_id) DO UPDATE SET kind = excluded.kind, due_ms = excluded.due_ms

-- name: delete_timer
DELETE FROM timers WHERE run_id = ? AND step_id = ?

-- name: delete_timers
DELETE FROM timers WHERE run_id = ?

-- name: timers_by_due
SELECT run_id, due_ms FROM timers ORDER BY due_ms

-- name: delete_lease
DELETE FROM timers WHERE run_id = ? AND step_id = '@lease'

-- name: renew_leases
UPDATE timers SET kind = 'lease', due_ms = max(due_ms, :due_ms)
WHERE step_id = '@lease' AND run_id IN (SELECT value FROM json_each(:run_ids))
RETURNING run_id

-- name: extend_all_leases
UPDATE timers SET kind = 'lease', due_ms = max(due_ms, :due_ms) WHERE step_id = '@lease'

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
