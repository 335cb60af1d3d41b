-- Ends the log of an hour, and of all hours before it. `indexes.lua` is loaded before this file.
--
-- KEYS: ended-closed, created, ended (the last two of exports that the sweep has not migrated)
-- ARGV[1]: JSON object
--   hour_ms              the hour
-- Answer: closed, or migrating while exports of an earlier version may get entries
local args = cjson.decode(ARGV[1])
local closed, created, ended = unpack(KEYS)
if redis.call('EXISTS', created, ended) > 0 then
  return 'migrating'
end
if args.hour_ms > tonumber(redis.call('GET', closed) or '0') then
  redis.call('SET', closed, full(args.hour_ms))
end
return 'closed'
