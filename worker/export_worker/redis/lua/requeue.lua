-- Enqueues one overdue export again whose queue entry is lost. This is a safety net for a Redis that has lost some of
-- its keys: otherwise an entry is due again when the lease of its worker ends.
--
-- KEYS: export, open, timeline, queue, parked (control) or waiting (transfers), aside, arq job
-- ARGV[1]: JSON object
--   export_id, now_ms, wake (channel)
--   step                 that the sweep has read (string)
--   job_id, payload, payload_ttl_ms
--   note                 the entry of the timeline (JSON text)
--   next_sweep_ms        when the sweep examines the export again, at the earliest
-- Answer: lost     the entry was lost; the export is enqueued again, and its timeline says so
--         waiting  the export waited for a slot or for a transfer worker; it is enqueued again, for its turn may have
--                  come without notice, and otherwise waits again
--         queued   the entry is in the queue, or is offered to other workers; nothing was lost
--         changed  the record is at another step, or has expired; nothing was changed
local args = cjson.decode(ARGV[1])
local export, open, timeline, queue, row, aside, job = unpack(KEYS)

if redis.call('HGET', export, 'step') ~= args.step then
  return 'changed'
end
redis.call('ZADD', open, 'XX', args.next_sweep_ms, args.export_id)
-- The next worker with room examines what is offered. For a long time there may have been none.
if redis.call('ZSCORE', queue, args.job_id) or redis.call('ZSCORE', aside, args.job_id) then
  return 'queued'
end
local since = redis.call('ZSCORE', row, args.job_id)
redis.call('ZREM', row, args.job_id)
redis.call('SET', job, args.payload, 'PX', args.payload_ttl_ms)
redis.call('ZADD', queue, since or args.now_ms, args.job_id)
redis.call('PUBLISH', args.wake, '')
if since then
  return 'waiting'
end
redis.call('RPUSH', timeline, args.note)
return 'lost'
