-- Stops a batch: it accepts no further exports. A batch without open exports has ended then. `indexes.lua` and
-- `batches.lua` of the worker are loaded before this file. The caller cancels the open exports.
--
-- KEYS: batch
-- ARGV[1]: JSON object
--   name, prefix, now_ms
-- Answer: stopped; ended when the batch has ended, and nothing was changed; or not_found
local args = cjson.decode(ARGV[1])
local batch = KEYS[1]
local found = redis.call('HMGET', batch, 'seed', 'ended_ms')
if not found[1] then
  return 'not_found'
elseif found[2] then
  return 'ended'
end
redis.call('HSET', batch, 'stop', full(args.now_ms))
settle_batch(args.prefix, batch, args.name, args.now_ms)
return 'stopped'
