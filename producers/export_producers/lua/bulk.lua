-- Claims a bulk run for one gateway, or saves how far it is. A gateway that stops responding loses the run when its lease
-- ends, and another one continues it.
--
-- KEYS: bulk, bulks
-- ARGV[1]: JSON object
--   bulk_id, owner       the run, and the gateway that calls
--   lease_ms             how long the lease lasts from now on
--   ttl_ms               how long the run is kept after its last change
--   progress             JSON text: how far the run is; missing: the gateway claims the run
--   ended                whether the run has ended; missing: it continues
--   release              whether the gateway stops and another one may continue at once; missing: it continues
-- Answer: JSON object
--   held                 whether the caller has the run now. Otherwise nothing was changed
--   stop                 whether a caller has requested that the run stops
--   order, progress      JSON texts, if the gateway has claimed the run
local args = cjson.decode(ARGV[1])
local bulk, bulks = unpack(KEYS)

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local run = redis.call('HMGET', bulk, 'owner', 'until', 'stop', 'order', 'progress')
local owner, until_ms, stop, order, progress = run[1], tonumber(run[2] or '0'), run[3], run[4], run[5]
if not order then
  redis.call('ZREM', bulks, args.bulk_id)
  return cjson.encode({held = false, stop = false})
end
local is_own = owner == args.owner
if (args.progress and not is_own) or (owner and not is_own and until_ms > now_ms) then
  return cjson.encode({held = false, stop = false})
end
redis.call('HSET', bulk, 'owner', args.owner, 'until', string.format('%.0f', now_ms + args.lease_ms))
if args.progress then
  redis.call('HSET', bulk, 'progress', args.progress)
end
if args.ended then
  redis.call('ZREM', bulks, args.bulk_id)
end
if args.ended or args.release then
  redis.call('HDEL', bulk, 'owner', 'until')
end
redis.call('PEXPIRE', bulk, args.ttl_ms)
return cjson.encode({
  held = true, stop = stop and true or false, order = not args.progress and order or nil,
  progress = not args.progress and progress or nil,
})
