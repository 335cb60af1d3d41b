-- Reads the circuit breakers for both claims; `claim.lua` before it describes keys, argument and answer.
--
-- Calls are paused in two ways. When a platform does not answer its check (`breaker:CONNECTION`), all its submits and
-- polls wait; the next step after the pause is the probe, which repeats the check. When the calls of one kind fail for
-- several exports of a connection (`breaker:CONNECTION:KIND`), only these exports wait, and after the pause one of them
-- is tried. An export for which no such call has failed does not wait. `commit.lua` opens and closes the breakers.

-- While a probe runs, the exports that wait for its result are examined this often.
local probe_poll_ms = 2000
local kinds = {queued = 'submit', running = 'poll', transferring = 'transfer'}

local function platform_breaker(export)
  return args.prefix .. 'breaker:' .. export.connection
end

local function kind_breaker(export)
  return platform_breaker(export) .. ':' .. (kinds[export.phase] or '')
end

-- Returns how many ms a circuit breaker pauses calls, and whether the next call is the probe that may end the pause.
local function pause_of(breaker)
  local state = redis.call('HMGET', breaker, 'until', 'probing')
  local open_until = tonumber(state[1] or '')
  if not open_until then
    return 0, false
  end
  local wait = math.max(0, open_until - now)
  return state[2] and math.min(wait, probe_poll_ms) or wait, wait == 0
end

-- The same for one export and the calls of its kind. Only exports for which such a call has failed wait; those with the
-- fewest failures are first.
local function kind_pause_of(export)
  local breaker = kind_breaker(export)
  local wait, probe = pause_of(breaker)
  export.spared = wait > 0 or probe
  local failed = export.spared and tonumber(redis.call('HGET', breaker, 'failed:' .. export.id) or '0') or 0
  if failed == 0 then
    return 0, false
  end
  return wait > 0 and wait + failed or 0, probe
end

-- Lets all others wait for the result of the probe. If the worker of the probe dies, the next claim sends another one.
local function start_probe(breaker)
  redis.call('HSET', breaker, 'until', int(now + args.lease_ms), 'probing', '1')
end
