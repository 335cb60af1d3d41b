-- Save what a step decided: record, timeline, indexes, next queue entry or outbox, and the end of the lease.
-- KEYS: export, lease, timeline, open, created, ended, old phase, new phase, queue, job, event, dedupe, outbox...
-- ARGV: one JSON object; the numbers in it are strings, since Lua would print large ones as 1e+12
-- Returns 1, or 0 when the lease or the version is no longer ours and nothing was changed
local c = cjson.decode(ARGV[1])
if redis.call('GET', KEYS[2]) ~= c.owner or redis.call('HGET', KEYS[1], 'version') ~= c.version then
  return 0
end
redis.call('HSET', KEYS[1], 'state', c.state, 'status', c.status)
redis.call('HINCRBY', KEYS[1], 'version', 1)
if c.note ~= '' then
  redis.call('RPUSH', KEYS[3], c.note)
  redis.call('LTRIM', KEYS[3], -tonumber(c.timeline_max), -1)
end
if KEYS[7] ~= KEYS[8] then
  redis.call('ZREM', KEYS[7], c.export_id)
  redis.call('ZADD', KEYS[8], c.created_ms, c.export_id)
end
if c.mode == 'keep' then
  return 1
end
redis.call('HINCRBY', KEYS[1], 'step', 1)
redis.call('HDEL', KEYS[1], 'progress')
redis.call('DEL', KEYS[2])
if c.mode == 'next' then
  redis.call('ZADD', KEYS[4], c.due_ms, c.export_id)
  redis.call('SET', KEYS[10], c.job, 'PX', c.job_ttl_ms)
  redis.call('ZADD', KEYS[9], c.due_ms, c.job_id)
  return 1
end
redis.call('ZREM', KEYS[4], c.export_id)
redis.call('ZADD', KEYS[6], c.now_ms, c.export_id)
redis.call('SET', KEYS[11], c.event, 'PX', c.retention_ms)
for i = 13, #KEYS do
  redis.call('ZADD', KEYS[i], c.now_ms, c.event_id)
end
-- Nothing of an ended export outlives its retention; the sweep clears it from the indexes.
for _, key in ipairs({KEYS[1], KEYS[3], KEYS[12]}) do
  redis.call('PEXPIRE', key, c.retention_ms)
end
return 1
