-- Announces a schedule of a worker's configuration. Its state stays, unless its times have changed.
--
-- KEYS: schedule, schedules
-- ARGV[1]: JSON object
--   name, definition     the schedule; the definition is JSON text
--   cron, timezone       the parts of the definition that decide the times
--   salt                 of the ids of its exports, if Redis has none
--   after_ms             until when times are decided, if Redis does not know it
--   next_ms              when the schedule is due next
--   now_ms
-- Answer: JSON object {salt, after_ms}, as Redis has them
local args = cjson.decode(ARGV[1])
local schedule, schedules = unpack(KEYS)

local salt, after_ms, stored = unpack(redis.call('HMGET', schedule, 'salt', 'after_ms', 'definition'))
local before = stored and cjson.decode(stored)
salt, after_ms = salt or args.salt, tonumber(after_ms or args.after_ms)
if before and (before.cron ~= args.cron or before.timezone ~= args.timezone) then
  -- The new times before this moment were not missed.
  after_ms = math.max(after_ms, args.now_ms)
end
redis.call('HSET', schedule, 'salt', salt, 'after_ms', after_ms, 'definition', args.definition, 'next_ms', args.next_ms)
redis.call('ZADD', schedules, args.now_ms, args.name)
return cjson.encode({salt = salt, after_ms = string.format('%.0f', after_ms)})
