-- Saves the decision of a step. In one write: the record, its timeline, and whether the platform answered. Unless the
-- step continues, also the end of its lease, with either the next queue entry or the completion event in every outbox.
--
-- KEYS: export, timeline, open, queue of this step, queue of the next step, arq job of this step, arq job of the next
--       step, dedupe, platform breaker, kind breaker, rate, durations, slots, parked, control queue, outboxes (any number)
-- ARGV[1]: JSON object
--   mode                 checkpoint: the step continues; next: another step follows; end: the export has ended
--   version              of the record when the step was claimed (string)
--   export_id, prefix, now_ms, retention_ms
--   phase, going_ms, connection, kind
--   error                the code of a failed export (missing: it has not failed). indexes.lua, statistics.lua and
--                        batches.lua are loaded before this file
--   note, timeline_max   an entry of the timeline (JSON text; missing: none), and how many entries are kept
--   role, job_id         of this step
--   call                 up: a call of the step's kind (submit, poll, transfer) was answered; failed: it was not, or with
--                        a server error; missing: there was no such call, or its failure concerns one export only
--   check                up or down: whether the platform answered the driver's cheap call (missing: it was not made)
--   probe, spared        as the claim has returned them
--   pause_ms             length of the pause of calls that the platform asked for; 0: none
--   breaker_threshold, breaker_first_ms, breaker_max_ms
--   duration_ms          of the platform's operation that has just ended (missing: none)
--   durations_max        how many durations are kept
--   mode checkpoint: progressed (whether the transfer got further than before)
--   files                JSON text of a transfer's files that `state` does not have (missing: unchanged)
--   stored, stored_before
--                        JSON texts of files that are stored now, and how many were stored before them (missing:
--                        unchanged). They are appended to the list of stored files
--   modes next and end: step (that would run next)
--   mode next: next_role, next_job_id, payload, payload_ttl_ms, due_ms, wake (channel),
--              cancel_delivered (whether the step had received the request to cancel)
--              keep: {version (string), lease_ms, interval_ms (between two requests), is_last_slot (of the worker, for
--              steps of this role)}: the worker claims the next step with this version if it is due at once and keep.lua,
--              which is loaded before this file, allows it (missing: it does not)
--   mode end:  event_id, generation, counted (what is counted about the export; see statistics.lua)
--              timeline_length (how many entries the timeline in the body has without the note; missing: not compared)
-- ARGV[2]: mode end: the packed body of the record of the ended export. past.lua, which writes it, is loaded before.
--          Else the state, as a JSON text; ARGV[3] is the status. Within ARGV[1], their quotes would have to be escaped
-- Answer: saved; kept, when the worker has claimed the next step as well; lease_lost when another worker has claimed the
--         step; or, in mode end, timeline_grew when the timeline has another length. With the last two, nothing was
--         changed.
local args = cjson.decode(ARGV[1])
local export, timeline, open, queue, next_queue, job, next_job, dedupe, platform_breaker, kind_breaker, rate, durations,
  slots, parked, control_queue = unpack(KEYS)
local outboxes = {unpack(KEYS, 16)}

local record = redis.call('HMGET', export, 'version', 'saved', 'phase', 'cancel', 'number', 'requested_by', 'files')
local old_phase, cancel_requested, number = record[3], record[4], tonumber(record[5] or '')
if record[1] ~= args.version then
  -- The client repeats a call whose answer was lost. Then this decision is already saved.
  local saved = record[2] or (read_past(args.prefix, args.export_id) or {}).saved
  if args.mode == 'checkpoint' or saved ~= args.version then
    return 'lease_lost'
  end
  return args.keep and record[1] == args.keep.version and 'kept' or 'saved'
end

-- Whether the timeline has another length than Python has read. It may grow while a worker holds the step: another worker
-- notes that this one has stopped responding.
local function has_timeline_grown()
  local length = args.timeline_length
  return length and (#redis.call('LRANGE', timeline, length, length) > 0
    or (length > 0 and #redis.call('LRANGE', timeline, length - 1, length - 1) == 0))
end

if args.mode == 'end' and has_timeline_grown() then
  return 'timeline_grew'
end

-- Saves the lists that the state of a transfer with many files does not have.
local function save_lists()
  local list = args.prefix .. 'stored:' .. args.export_id
  if args.phase ~= 'transferring' then
    if record[7] then
      redis.call('HDEL', export, 'files')
      redis.call('DEL', list)
    end
    return
  end
  if args.files then
    redis.call('HSET', export, 'files', args.files)
  end
  if args.stored then
    -- The client repeats a call whose answer was lost: no file may be in the list twice.
    if args.stored_before == 0 then
      redis.call('DEL', list)
    else
      redis.call('LTRIM', list, 0, args.stored_before - 1)
    end
    for _, item in ipairs(args.stored) do
      redis.call('RPUSH', list, item)
    end
  end
end

local function save_record()
  redis.call('HSET', export, 'state', ARGV[2], 'status', ARGV[3], 'phase', args.phase, 'going', args.going_ms)
  if args.note and redis.call('RPUSH', timeline, args.note) > args.timeline_max then
    redis.call('LTRIM', timeline, -args.timeline_max, -1)
  end
end

local function update_indexes()
  if old_phase ~= args.phase then
    number = number or number_of_old(args.prefix, args.export_id, {args.connection, args.kind, record[6], old_phase})
    move_export(args.prefix, number, args.phase, args.error)
  end
end

-- A breaker is forgotten when no call has failed for this time. It must be longer than the waits between attempts.
local breaker_kept_ms = 600000

local function keep_breaker(breaker)
  local kept_ms = math.max(breaker_kept_ms, 2 * args.breaker_max_ms)
  redis.call('PEXPIRE', breaker, math.min(kept_ms, args.retention_ms))
end

-- Opens a breaker. Each further pause in a row is twice as long.
local function pause_calls(breaker)
  local doublings = math.min(redis.call('HINCRBY', breaker, 'pauses', 1) - 1, 20)
  local pause_ms = math.min(args.breaker_max_ms, args.breaker_first_ms * 2 ^ doublings)
  redis.call('HSET', breaker, 'until', string.format('%.0f', args.now_ms + pause_ms))
  redis.call('HDEL', breaker, 'probing')
  keep_breaker(breaker)
end

local function resume_calls(breaker, role)
  if redis.call('DEL', breaker) == 1 then
    redis.call('PUBLISH', args.prefix .. 'wake:' .. role, '')
  end
end

-- Applies what the step has learned about the platform as a whole.
local function update_platform_breaker()
  if args.check == 'down' then
    -- Calls that were made before the breaker opened prove nothing new: only a probe makes the pause longer.
    if args.probe or tonumber(redis.call('HGET', platform_breaker, 'until') or '0') <= args.now_ms then
      pause_calls(platform_breaker)
    end
  elseif args.check == 'up' or (args.call == 'up' and args.role == 'control') then
    resume_calls(platform_breaker, 'control')
  end
end

-- Counts a failed call. The calls of its kind are paused when they have failed for several exports without a success in
-- between. Then only an export that is tried again makes the pause longer.
local function count_failure()
  local failed = redis.call('HINCRBY', kind_breaker, 'failed:' .. args.export_id, 1)
  local failures = redis.call('HINCRBY', kind_breaker, 'failures', failed == 1 and 1 or 0)
  keep_breaker(kind_breaker)
  local is_open = redis.call('HEXISTS', kind_breaker, 'until') == 1
  if failures >= args.breaker_threshold and (not is_open or (args.spared and failed > 1)) then
    pause_calls(kind_breaker)
  end
end

local function update_breakers()
  update_platform_breaker()
  if args.call == 'failed' then
    count_failure()
  elseif args.call == 'up' then
    resume_calls(kind_breaker, args.role)
  end
end

local function end_step()
  if args.mode == 'next' then
    redis.call('HSET', export, 'version', full(args.version + 1), 'step', args.step, 'saved', args.version)
    redis.call('HDEL', export, 'progress', 'claims', 'lost', 'released', 'refused', 'retry')
  end
  redis.call('ZREM', queue, args.job_id)
  redis.call('DEL', job)
end

local function pause_connection()
  local free_at = args.now_ms + args.pause_ms + 1000
  if args.pause_ms > 0 and free_at > tonumber(redis.call('GET', rate) or '0') then
    redis.call('SET', rate, free_at, 'PX', args.pause_ms + 2000)
  end
end

-- Poll schedules use the last durations of operations of this kind on this connection.
local function keep_duration()
  if args.duration_ms then
    redis.call('LPUSH', durations, args.duration_ms)
    redis.call('LTRIM', durations, 0, args.durations_max - 1)
    redis.call('PEXPIRE', durations, args.retention_ms)
  end
end

-- An export has a slot of its connection only while it runs on the platform.
local function update_slots()
  -- An export whose file is no longer there runs on the platform again. It gets a slot even beyond the limit.
  if args.phase == 'running' and old_phase == 'transferring' then
    redis.call('ZADD', slots, args.now_ms, args.export_id)
  end
  if args.phase == 'running' or redis.call('ZREM', slots, args.export_id) == 0 then
    return
  end
  -- The slot is free: the export that has waited longest is due.
  local first = redis.call('ZPOPMIN', parked)
  if first[1] then
    redis.call('ZADD', control_queue, 'NX', first[2], first[1])
    redis.call('PUBLISH', args.prefix .. 'wake:control', '')
  end
end

local function may_keep()
  local keep = args.keep
  return keep and args.due_ms <= args.now_ms and not cancel_requested
    and not (keep.is_last_slot and has_waiting(args.prefix, args.next_role, next_queue, args.now_ms))
    and not has_failed_calls(args.prefix, args.connection, args.phase)
    and count_kept_call(rate, keep.interval_ms, args.now_ms)
end

-- Claims the next step for the worker of this one. As after a claim, its entry is due when the lease ends.
local function keep_next_step()
  local until_ms = args.now_ms + args.keep.lease_ms
  redis.call('HSET', export, 'version', args.keep.version, 'claims', 1)
  redis.call('ZADD', open, until_ms, args.export_id)
  redis.call('ZADD', next_queue, until_ms, args.next_job_id)
end

local function schedule_next_step()
  local due_ms = args.due_ms
  if cancel_requested and not args.cancel_delivered then
    -- Cancellation was requested while the step ran, so the next step is due at once.
    due_ms = args.now_ms
  end
  redis.call('ZADD', open, due_ms, args.export_id)
  redis.call('SET', next_job, args.payload, 'PX', args.payload_ttl_ms)
  redis.call('ZADD', next_queue, due_ms, args.next_job_id)
  if due_ms <= args.now_ms then
    redis.call('PUBLISH', args.wake, '')
  end
end

-- Ends the export: a packed record replaces its keys, its event is added to every outbox, and its keys expire. The sweep
-- clears the indexes.
local function end_export()
  redis.call('ZREM', open, args.export_id)
  log_end(args.prefix, number, args.now_ms, args.generation)
  count_end(args.prefix, args.connection, args.now_ms, args.counted)
  for _, outbox in ipairs(outboxes) do
    redis.call('ZADD', outbox, args.now_ms, args.event_id)
    -- Its events have expired by then. A sink that was removed from the configuration never empties its outbox.
    redis.call('PEXPIRE', outbox, args.retention_ms)
  end
  local identity = redis.call('HGET', export, 'message') or nil
  write_past(args.prefix, args.export_id, {
    phase = args.phase, generation = args.generation, step = args.step, number = number, saved = args.version,
    until_ms = args.now_ms + args.retention_ms, connection = args.connection, kind = args.kind,
    requested_by = record[6], error = args.error, identity = identity and string.sub(identity, #args.prefix + 1),
  }, ARGV[2], args.retention_ms)
  -- With an identity of its own, the export has no idempotency key of the common ones: that may be of another export.
  redis.call('PEXPIRE', identity or dedupe, args.retention_ms)
  leave_batch(args.prefix, identity, number, args.phase, args.now_ms)
end

if args.mode ~= 'end' then
  save_record()
  save_lists()
end
update_indexes()
if args.mode ~= 'checkpoint' or args.note then
  add_change(args.prefix, args.export_id, args.connection, args.kind, args.phase, old_phase)
end
update_breakers()
if args.mode == 'checkpoint' then
  if args.progressed then
    -- The step makes progress, so the workers that died in it died of something else.
    redis.call('HDEL', export, 'lost')
  end
  return 'saved'
end
end_step()
pause_connection()
keep_duration()
update_slots()
if args.mode == 'next' and may_keep() then
  keep_next_step()
  return 'kept'
elseif args.mode == 'next' then
  schedule_next_step()
else
  end_export()
end
return 'saved'
