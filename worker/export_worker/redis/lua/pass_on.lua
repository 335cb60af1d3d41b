-- Passes the operation of an export that is cancelled on to another one that shares it, so that it continues on the
-- platform. `indexes.lua` and `sharing.lua` are loaded before this file.
--
-- KEYS: export
-- ARGV[1]: JSON object
--   version              of the record when the step was claimed (string)
--   export_id, prefix, now_ms
--   was_taken            true if the export has taken the operation over, or kept it over a retry
-- Answer: passed       another export has the operation, or may have it; also for a repeated call
--         alone        no other export needs it: it may be cancelled on the platform. Later exports do not share it
--         lease_lost   another worker has claimed the step; nothing was changed
local args = cjson.decode(ARGV[1])
local export = KEYS[1]

local record = redis.call('HMGET', export, 'version', 'share', 'passed')
if record[1] ~= args.version then
  return 'lease_lost'
end
if record[3] then
  return 'passed'
end
-- A retried export does not share any more. Others may use the operation that it had before.
if not record[2] and args.was_taken then
  return 'passed'
end
local heir = record[2] and leave_sharing(args.prefix, args.export_id, record[2], args.now_ms, true)
if not heir then
  return 'alone'
end
redis.call('HSET', export, 'passed', heir)
return 'passed'
