-- Hands back a claimed step as if it had never been claimed. The step was not started, because this worker cannot read
-- the record, cannot reach the store, or shuts down.
--
-- KEYS: export, queue, open, aside
-- ARGV[1]: JSON object
--   version              of the record when the step was claimed (string)
--   export_id, job_id, now_ms, prefix, wake (channel)
--   refused_by           the name of this worker, which cannot run the step now: only other workers may claim the step
--                        until offered_until_ms; missing: every worker may claim it at once
-- Answer: handed_back, or lease_lost when another worker has claimed the step; then nothing was changed.
local args = cjson.decode(ARGV[1])
local export, queue, open, aside = unpack(KEYS)

local record = redis.call('HMGET', export, 'version', 'phase', 'connection', 'refused')
local phase, connection, refused = record[2], record[3], record[4]
if record[1] ~= args.version then
  return 'lease_lost'
end
redis.call('HINCRBY', export, 'version', 1)
-- This claim does not count: the next worker must not assume that a submit may have reached the platform.
if redis.call('HINCRBY', export, 'claims', -1) < 1 then
  redis.call('HDEL', export, 'claims')
else
  -- No worker holds the step: the next claim must not take this worker for dead.
  redis.call('HSET', export, 'released', '1')
end
if phase == 'queued' then
  redis.call('ZREM', args.prefix .. 'slots:' .. (connection or ''), args.export_id)
end
if args.refused_by then
  local others = refused and refused ~= 'all' and refused or ''
  redis.call('ZREM', queue, args.job_id)
  redis.call('ZADD', aside, args.offered_until_ms, args.job_id)
  redis.call('ZADD', open, 'XX', args.offered_until_ms + 60000, args.export_id)
  redis.call('HSET', export, 'refused', others .. '|' .. args.refused_by .. '|')
else
  redis.call('ZADD', queue, 'XX', args.now_ms, args.job_id)
  redis.call('ZADD', open, 'XX', args.now_ms, args.export_id)
end
redis.call('PUBLISH', args.wake, '')
return 'handed_back'
