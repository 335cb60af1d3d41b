-- Takes a lock that one worker may hold at a time, and that ends by itself.
--
-- The TTL alone is not enough: when the clock of Redis is set back by an hour, keys expire an hour later.
--
-- KEYS: lock
-- ARGV[1]: JSON object
--   now_ms, hold_ms      the time, and how long the lock is held
--   owner                the name of this worker
-- Answer: taken, or held when another worker holds the lock; then nothing was changed.
local args = cjson.decode(ARGV[1])
local lock = KEYS[1]

local kept = redis.call('GET', lock)
-- A worker of an earlier version writes its name alone. Its lock ends with the key.
local until_ms = kept and (tonumber(string.match(kept, '^(%d+):') or '') or math.huge)
if until_ms and until_ms > args.now_ms then
  return 'held'
end
redis.call('SET', lock, string.format('%.0f:%s', args.now_ms + args.hold_ms, args.owner), 'PX', args.hold_ms)
return 'taken'
