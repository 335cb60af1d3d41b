-- Decides one time of a schedule: enqueues its export, or notes why there is none. Every worker calls this for every
-- time, and again some seconds later, in case a fail-over of Redis has lost the first call. The first call decides.
-- `enqueue.lua` is loaded before this file, as the function `enqueue`.
--
-- KEYS: schedule, and the keys of `enqueue.lua`
-- ARGV[1]: JSON object
--   firing_ms, time      the time, as a number and as RFC 3339
--   missed_ms            earlier times that no worker has fired (missing: none)
--   next_ms              when the schedule is due after this time
--   skips                true if the export of the time before must have ended (missing: it need not)
--   is_late              true if the time was missed for too long (missing: it was not)
--   export_id, prefix, and the other fields of `enqueue.lua`
-- Answer: JSON object {verdict, export_id, platform}
--   fired                the export export_id was enqueued
--   skipped              the export export_id of an earlier time has not ended
--   missed               the time was missed for too long
--   refused              no worker has announced the connection, or its platform is another one (platform)
--   paused               an operator has paused the schedule
--   done                 the time, or a later one, was decided before; nothing was changed
--   unknown              Redis does not have the schedule; nothing was changed
local args = cjson.decode(ARGV[1])
local schedule = KEYS[1]

local after_ms, paused, open_id = unpack(redis.call('HMGET', schedule, 'after_ms', 'paused', 'export_id'))
if not after_ms then
  return cjson.encode({verdict = 'unknown'})
end
after_ms = tonumber(after_ms)
if args.firing_ms <= after_ms then
  return cjson.encode({verdict = 'done'})
end

local function note(outcome, export_id)
  redis.call('HINCRBY', schedule, outcome, 1)
  redis.call('HSET', schedule, 'last', cjson.encode({time = args.time, outcome = outcome, export_id = export_id}))
end

local function is_open(export_id)
  local phase = export_id and phase_of_export(args.prefix, export_id)
  return phase and phase_codes[phase] and phase_codes[phase] < phase_codes.succeeded
end

-- Returns the answer, after the export was enqueued or the reason was noted.
local function decided()
  if paused then
    return {verdict = 'paused'}
  end
  for _, missed_ms in ipairs(args.missed_ms or {}) do
    if missed_ms > after_ms then
      redis.call('HINCRBY', schedule, 'missed', 1)
    end
  end
  if args.is_late then
    note('missed')
    return {verdict = 'missed'}
  end
  if args.skips and is_open(open_id) then
    note('skipped', open_id)
    return {verdict = 'skipped', export_id = open_id}
  end
  local answer = cjson.decode(enqueue({unpack(KEYS, 2)}, ARGV))
  if answer.verdict ~= 'accepted' then
    note('refused')
    return {verdict = 'refused', platform = answer.platform}
  end
  note('fired', args.export_id)
  redis.call('HSET', schedule, 'export_id', args.export_id)
  return {verdict = 'fired', export_id = args.export_id}
end

local answer = decided()
redis.call('HSET', schedule, 'after_ms', args.firing_ms, 'next_ms', args.next_ms)
return cjson.encode(answer)
