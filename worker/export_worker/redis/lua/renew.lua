-- Renews the leases of all steps that one worker holds, and saves the progress of their transfers.
--
-- KEYS: open, control queue, transfer queue
-- ARGV[1]: JSON object
--   prefix               the namespace with its colon
--   until_ms             when the leases end
--   last                 whether no further renewal follows, because the worker stops. When such a lease ends, the worker
--                        does not count as dead.
--   steps                a list, never empty, of
--                        {export_id, job_id, role, version (string; of the record when the step was claimed),
--                        progress (JSON text; missing: unchanged)}
-- Answer: JSON object
--   answers              a list with one word for each step, in the order of `steps`: renewed; cancel_requested, when
--                        the lease is renewed and the export is to be cancelled; lease_lost, when another worker has
--                        claimed the step; or failed. With the last two, nothing of this step was changed.
--   error                the first error of the steps that failed; missing when there is none
local args = cjson.decode(ARGV[1])
local open = KEYS[1]
local queues = {control = KEYS[2], transfer = KEYS[3]}

local function renew(step)
  local export = args.prefix .. 'export:' .. step.export_id
  local record = redis.call('HMGET', export, 'version', 'cancel', 'released', 'lost')
  if record[1] ~= step.version then
    return 'lease_lost'
  end
  if record[3] == 'died' then
    -- A claim has counted this worker as dead, and no other worker has claimed the step since: the worker was slow.
    redis.call('HDEL', export, 'released')
    if record[4] then
      redis.call('HINCRBY', export, 'lost', -1)
    end
  end
  if args.last then
    redis.call('HSET', export, 'released', 'ending')
  end
  redis.call('ZADD', queues[step.role], 'XX', args.until_ms, step.job_id)
  redis.call('ZADD', open, 'XX', args.until_ms, step.export_id)
  if step.progress then
    redis.call('HSET', export, 'progress', step.progress)
  end
  return record[2] and 'cancel_requested' or 'renewed'
end

local answers, first_error = {}, nil
for at, step in ipairs(args.steps) do
  -- An error on one damaged record must not end the leases of all others.
  local done, answer = pcall(renew, step)
  if not done then
    first_error = first_error or (type(answer) == 'table' and answer.err or tostring(answer))
  end
  answers[at] = done and answer or 'failed'
end
return cjson.encode({answers = answers, error = first_error})
