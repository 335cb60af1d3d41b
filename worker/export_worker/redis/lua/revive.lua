-- Bring back one overdue export whose queue entry is lost. A backstop: entries come back by themselves when the lease
-- of their worker ends, so this is for a Redis that has lost a part of its keys.
-- KEYS: export, open, timeline, queue, parked or waiting, aside
-- ARGV: export id, step, now (ms), job id, job payload, job TTL (ms), timeline entry, look again (ms), wake channel
-- Returns 1 when it was brought back
if redis.call('HGET', KEYS[1], 'step') ~= ARGV[2] then
  return 0
end
redis.call('ZADD', KEYS[2], 'XX', ARGV[8], ARGV[1])
-- What is set aside is looked at by whoever has room next; nobody may have had any for long.
if redis.call('ZSCORE', KEYS[4], ARGV[4]) or redis.call('ZSCORE', KEYS[6], ARGV[4]) then
  return 0
end
-- One that waits for a slot, or in the row of its connection's transfers, goes back into the queue, too: a slot may have
-- become free without a word. It waits again if not.
local since = redis.call('ZSCORE', KEYS[5], ARGV[4])
redis.call('ZREM', KEYS[5], ARGV[4])
redis.call('SET', 'arq:job:' .. ARGV[4], ARGV[5], 'PX', ARGV[6])
redis.call('ZADD', KEYS[4], since or ARGV[3], ARGV[4])
redis.call('PUBLISH', ARGV[9], '')
if since then
  return 0
end
redis.call('RPUSH', KEYS[3], ARGV[7])
return 1
