-- Renews the lease of a step that this worker holds, and saves the progress of a transfer.
--
-- KEYS: export, queue, open
-- ARGV[1]: JSON object
--   version              of the record when the step was claimed (string)
--   export_id, job_id
--   until_ms             when the lease ends
--   progress             JSON text; missing: unchanged
-- Answer: renewed; cancel_requested, when the lease is renewed and cancellation was requested; or lease_lost, when
--         another worker has claimed the step; then nothing was changed.
local args = cjson.decode(ARGV[1])
local export, queue, open = unpack(KEYS)

local record = redis.call('HMGET', export, 'version', 'cancel')
if record[1] ~= args.version then
  return 'lease_lost'
end
redis.call('ZADD', queue, 'XX', args.until_ms, args.job_id)
redis.call('ZADD', open, 'XX', args.until_ms, args.export_id)
if args.progress then
  redis.call('HSET', export, 'progress', args.progress)
end
return record[2] and 'cancel_requested' or 'renewed'
