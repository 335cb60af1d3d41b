-- Ask for an export's end. Whoever has it hears it within a heartbeat; if nobody has, it is due at once.
-- KEYS: export, open, queue:control, queue:transfer
-- ARGV: export id, now (ms), prefix
-- Returns {'gone' | 'ended' | 'asked', phase}
local record = redis.call('HMGET', KEYS[1], 'phase', 'step', 'claims', 'connection', 'released')
local phase = record[1]
if not phase then
  return {'gone', ''}
end
if phase == 'succeeded' or phase == 'failed' or phase == 'cancelled' then
  return {'ended', phase}
end
redis.call('HSET', KEYS[1], 'cancel', ARGV[2])
if not record[3] or record[5] then
  local job = ARGV[3] .. ARGV[1] .. ':' .. record[2]
  local role = phase == 'transferring' and 'transfer' or 'control'
  for _, place in ipairs({'parked:' .. record[4], 'waiting:' .. record[4], 'aside:' .. role}) do
    redis.call('ZREM', ARGV[3] .. place, job)
  end
  redis.call('ZADD', role == 'control' and KEYS[3] or KEYS[4], ARGV[2], job)
  redis.call('ZADD', KEYS[2], 'XX', ARGV[2], ARGV[1])
  redis.call('PUBLISH', ARGV[3] .. 'wake:' .. role, '')
end
return {'asked', phase}
