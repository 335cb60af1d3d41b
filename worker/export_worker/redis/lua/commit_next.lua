-- The end of a step: what both a next step and the end of the export change. Then, in mode next, the next step.
-- `commit.lua` describes keys, argument and answer.

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

local function update_indexes()
  if old_phase ~= args.phase then
    number = number or number_of_old(args.prefix, args.export_id, {args.connection, args.kind, record[6], old_phase})
    move_export(args.prefix, number, args.phase, args.error)
  end
end

local function end_step()
  if args.mode == 'next' then
    redis.call('HSET', export, 'version', full(args.version + 1), 'step', args.step, 'saved', args.version)
    redis.call('HDEL', export, 'progress', 'claims', 'lost', 'released', 'refused', 'retry')
    if args.took_over then
      redis.call('HDEL', export, 'source')
    end
  end
  redis.call('ZREM', queue, args.job_id)
end

local function pause_connection()
  local free_at = args.now_ms + (args.pause_ms or 0) + 1000
  if args.pause_ms and free_at > tonumber(redis.call('GET', rate) or '0') then
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

-- While submits are held, parked exports keep their turns. The claim that ends the hold makes them due.
local function is_held()
  for _, holds in ipairs({'paused', 'closed'}) do
    if tonumber(redis.call('ZSCORE', args.prefix .. holds, args.connection) or '0') > args.now_ms then
      return true
    end
  end
  return false
end

-- An export has a slot of its connection only while it runs on the platform.
local function update_slots()
  -- An export whose file is no longer there, or that takes over, runs on the platform. It gets a slot even beyond the limit.
  if args.phase == 'running' and (old_phase == 'transferring' or args.took_over) then
    redis.call('ZADD', slots, args.now_ms, args.export_id)
  end
  if args.phase == 'running' or redis.call('ZREM', slots, args.export_id) == 0 then
    return
  end
  -- The slot is free: the export whose turn it is is due.
  local job, since
  if not is_held() then
    job, since = take_turn(args.prefix, 'parked:' .. args.connection)
  end
  if job then
    redis.call('ZADD', control_queue, 'NX', since, job)
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
  redis.call('ZADD', next_queue, due_ms, args.next_job_id)
  if due_ms <= args.now_ms then
    redis.call('PUBLISH', args.wake, '')
  end
end

update_indexes()
add_change(args.prefix, args.export_id, args.connection, args.kind, args.phase, old_phase)
update_breakers()
end_step()
pause_connection()
keep_duration()
update_slots()
if args.mode == 'next' and may_keep() then
  keep_next_step()
  return 'kept'
elseif args.mode == 'next' then
  schedule_next_step()
  return 'saved'
end
