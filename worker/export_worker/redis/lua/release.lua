-- Releases a step that this worker has started and cannot finish, because it shuts down. The step is due at once.
--
-- KEYS: export, queue, open
-- ARGV[1]: JSON object
--   version              of the record when the step was claimed (string)
--   export_id, job_id, now_ms, wake (channel)
-- Answer: released, or lease_lost when another worker has claimed the step; then nothing was changed.
local args = cjson.decode(ARGV[1])
local export, queue, open = unpack(KEYS)

if redis.call('HGET', export, 'version') ~= args.version then
  return 'lease_lost'
end
redis.call('HINCRBY', export, 'version', 1)
-- The claims of the step still count: the next worker looks for what this one has left in S3.
redis.call('HSET', export, 'released', '1')
redis.call('ZADD', queue, 'XX', args.now_ms, args.job_id)
redis.call('ZADD', open, 'XX', args.now_ms, args.export_id)
redis.call('PUBLISH', args.wake, '')
return 'released'
