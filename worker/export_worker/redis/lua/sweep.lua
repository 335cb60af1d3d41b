-- Enqueues overdue exports again whose queue entry is lost, and removes ended exports from the index of open ones. This
-- is a safety net for a Redis that has lost some of its keys: otherwise an entry is due again when the lease of its worker
-- ends. Listing and enqueuing are one script, because an export may end at any time: a list that was read before would
-- start an ended export again.
--
-- KEYS: open
-- ARGV[1]: JSON object
--   prefix               the namespace with its colon
--   now_ms, now          the time in ms, and as the timeline has it
--   overdue_ms, max      exports that were due before this time are examined, at most so many
--   next_sweep_ms        when the next sweep examines these exports again, at the earliest
--   timeline_max         how many notes a timeline keeps
-- Answer: JSON object
--   lost                 ids of the exports whose entry was lost; missing when there is none
local args = cjson.decode(ARGV[1])
local open = KEYS[1]
local ended = {succeeded = true, failed = true, cancelled = true}
local lost = {}

local function add_note(id, phase, step)
  local timeline = args.prefix .. 'timeline:' .. id
  local note = {at = args.now, phase = phase, step = step, note = 'enqueued again: its queue entry was lost'}
  redis.call('RPUSH', timeline, cjson.encode(note))
  redis.call('LTRIM', timeline, -args.timeline_max, -1)
end

local function examine(id)
  local record = redis.call('HMGET', args.prefix .. 'export:' .. id, 'step', 'phase', 'connection')
  local step, phase, connection = tonumber(record[1] or ''), record[2], record[3]
  if not step or not phase or not connection or ended[phase] then
    redis.call('ZREM', open, id)
    return
  end
  redis.call('ZADD', open, 'XX', args.next_sweep_ms, id)
  local role = phase == 'transferring' and 'transfer' or 'control'
  local queue, job = args.prefix .. 'queue:' .. role, args.prefix .. id .. ':' .. record[1]
  -- The next worker with room examines what is offered. For a long time there may have been none.
  if redis.call('ZSCORE', queue, job) or redis.call('ZSCORE', args.prefix .. 'aside:' .. role, job) then
    return
  end
  -- An export that waits for a slot or a transfer worker is enqueued as well: its turn may have come without notice.
  local row = args.prefix .. (role == 'transfer' and 'waiting:' or 'parked:') .. connection
  local since = redis.call('ZSCORE', row, job)
  redis.call('ZREM', row, job)
  redis.call('ZADD', queue, since or args.now_ms, job)
  redis.call('PUBLISH', args.prefix .. 'wake:' .. role, '')
  if not since then
    add_note(id, phase, step)
    lost[#lost + 1] = id
  end
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', open, '-inf', args.overdue_ms, 'LIMIT', 0, args.max)) do
  -- An error on one damaged record must not stop all others. When Redis itself refuses writes, this fails as well.
  if not pcall(examine, id) then
    redis.call('ZADD', open, 'XX', args.next_sweep_ms, id)
  end
end
return cjson.encode({lost = #lost > 0 and lost or nil})
