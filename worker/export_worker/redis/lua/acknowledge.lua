-- Removes a delivery that its sink has accepted, with everything that is kept about its refusals, and lists it among the
-- last ones of the sink.
--
-- KEYS: outbox, refusals, answers, undelivered, given_up, delivered
-- ARGV[1]: JSON object
--   event_id
--   entry                of the list (missing: the delivery is not listed)
--   delivered_max, retention_ms
--                        how many deliveries are listed, and how long the list is kept
-- Answer: acknowledged
local args = cjson.decode(ARGV[1])
local outbox, refusals, answers, undelivered, given_up, delivered = unpack(KEYS)

redis.call('ZREM', outbox, args.event_id)
-- Most sinks have refused nothing.
if redis.call('EXISTS', refusals, answers, undelivered, given_up) > 0 then
  for _, key in ipairs({refusals, answers, undelivered}) do
    redis.call('HDEL', key, args.event_id)
  end
  redis.call('ZREM', given_up, args.event_id)
end
if args.entry then
  if redis.call('LPUSH', delivered, args.entry) > args.delivered_max then
    redis.call('LTRIM', delivered, 0, args.delivered_max - 1)
  end
  redis.call('PEXPIRE', delivered, args.retention_ms)
end
return 'acknowledged'
