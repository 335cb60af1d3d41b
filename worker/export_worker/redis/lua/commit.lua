-- Saves the decision of a step. In one write: the record, its timeline, and whether the platform answered. Unless the
-- step continues, also the end of its lease, with either the next queue entry or the completion event in every outbox.
--
-- A script runs from its beginning each time, and half of the cost of a small one is to define its functions. So the parts
-- are in the order in which they are needed: this file is enough for a checkpoint, and `commit_next.lua` for a next step.
-- `commit_script` joins them.
--
-- KEYS: export, timeline, open, queue of this step, queue of the next step, dedupe, platform breaker, kind breaker, rate,
--       durations, slots, control queue, outboxes (any number)
-- ARGV[1]: JSON object
--   mode                 checkpoint: the step continues; next: another step follows; end: the export has ended
--   version              of the record when the step was claimed (string)
--   export_id, prefix, now_ms, retention_ms
--   phase, going_ms, connection, kind
--   error                the code of a failed export (missing: it has not failed)
--   note, timeline_max   an entry of the timeline (JSON text; missing: none), and how many entries are kept
--   role, job_id         of this step
--   call                 up: a call of the step's kind (submit, poll, transfer) was answered; failed: it was not, or with
--                        a server error; missing: there was no such call, or its failure concerns one export only
--   check                up or down: whether the platform answered the driver's cheap call (missing: it was not made)
--   probe, spared        as the claim has returned them (missing: false)
--   pause_ms             length of the pause of calls that the platform asked for (missing: none)
--   breaker_threshold, breaker_first_ms, breaker_max_ms
--                        of a failure: when and for how long calls are paused
--   duration_ms          of the platform's operation that has just ended (missing: none)
--   durations_max        how many durations are kept
--   mode checkpoint: progressed (whether the transfer got further than before)
--   files                JSON text of a transfer's files that `state` does not have (missing: unchanged)
--   stored, stored_before
--                        JSON texts of files that are stored now, and how many were stored before them (missing:
--                        unchanged). They are appended to the list of stored files
--   modes next and end: step (that would run next)
--   took_over            the step has taken over from the export in the field `source` (missing: it has not)
--   shares               mode end: who takes over from an export that shares its operation, all or next (missing: none).
--   mode next: next_role, next_job_id, due_ms, wake (channel),
--              cancel_delivered (whether the step had received the request to cancel)
--              keep: {version (string), lease_ms, interval_ms (between two requests), is_last_slot (of the worker, for
--              steps of this role)}: the worker claims the next step with this version if it is due at once and keep.lua
--              allows it (missing: it does not)
--   mode end:  event_id, generation, counted (what is counted about the export; see statistics.lua)
--              timeline_length (how many entries the timeline in the body has without the note; missing: not compared)
--              take: {until_ms, outboxes (outbox -> true)}: the worker delivers the event to these outboxes itself. They
--              offer it to others when this lease ends (missing: every outbox offers it at once)
-- ARGV[2]: mode end: the packed body of the record of the ended export, which past.lua writes.
--          Else the state, as a JSON text; ARGV[3] is the status. Within ARGV[1], their quotes would have to be escaped
-- Answer: saved, or with `take` the stored event; kept, when the worker has claimed the next step as well; lease_lost when
--         another worker has claimed the step; or, in mode end, timeline_grew when the timeline has another length. With
--         the last two, nothing was changed.
local args = cjson.decode(ARGV[1])
local export, timeline, open, queue, next_queue, dedupe, platform_breaker, kind_breaker, rate, durations,
  slots, control_queue = unpack(KEYS)
local outboxes = {unpack(KEYS, 13)}

local record = redis.call('HMGET', export, 'version', 'saved', 'phase', 'cancel', 'number', 'requested_by', 'files')
local old_phase, cancel_requested, number = record[3], record[4], tonumber(record[5] or '')

-- Returns the version whose commit has ended the export, from its packed record; nil if it has not ended.
local function saved_by_end()
  local header = redis.call('GETRANGE', args.prefix .. 'past:' .. args.export_id, 0, 120)
  return string.match(header, '^2\n%a+\n%d+\n%d+\n%d*\n(%d+)\n')
end

if record[1] ~= args.version then
  -- The client repeats a call whose answer was lost. Then this decision is already saved.
  local saved = record[2] or saved_by_end()
  if args.mode == 'checkpoint' or saved ~= args.version then
    return 'lease_lost'
  end
  return args.keep and record[1] == args.keep.version and 'kept' or 'saved'
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

if args.mode ~= 'end' then
  save_record()
  save_lists()
end
if args.mode == 'checkpoint' then -- which changes no phase
  if args.note then
    add_change(args.prefix, args.export_id, args.connection, args.kind, args.phase, old_phase)
  end
  update_breakers()
  if args.progressed then
    -- The step makes progress, so the workers that died in it died of something else.
    redis.call('HDEL', export, 'lost')
  end
  return 'saved'
end
