-- Takes due deliveries of one sink. A delivery that is not acknowledged is due again after the visibility timeout.
--
-- KEYS: outbox, refusals
-- ARGV[1]: JSON object
--   now_ms
--   visible_again_ms     when a delivery that is not acknowledged is due again
--   max                  how many deliveries to take
--   event_prefix         what the key of an event begins with; the event's id follows
-- Answer: JSON object {deliveries}; missing when nothing is due; a list of {event_id, event, refusals}, where event is
--         JSON text, and refusals is 'failures:first', or missing when the sink has not refused the event yet.
local args = cjson.decode(ARGV[1])
local outbox, refusals = unpack(KEYS)

local taken = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', outbox, '-inf', args.now_ms, 'LIMIT', 0, args.max)) do
  local event = redis.call('GET', args.event_prefix .. id)
  if event then
    redis.call('ZADD', outbox, args.visible_again_ms, id)
    taken[#taken + 1] = {event_id = id, event = event, refusals = redis.call('HGET', refusals, id) or nil}
  else
    -- The event's retention has passed before the sink accepted it: nothing is left to deliver.
    redis.call('ZREM', outbox, id)
    redis.call('HDEL', refusals, id)
  end
end
return cjson.encode({deliveries = #taken > 0 and taken or nil})
