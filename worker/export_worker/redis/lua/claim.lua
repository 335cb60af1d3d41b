-- Claims due steps of one role: as many as may run now, up to `max`, each with everything that the step needs.
--
-- This file has what both roles share. `claim_script` joins it with others, such as `claim_control.lua` for one role.
--
-- Every queue entry that the script examines leaves the due range, so that no entry hides another one behind it:
--   claimed:   the entry is due again when the lease ends
--   postponed: the connection is paused or rate-limited, or another export leads (sharing.lua); it is due again later
--   waiting:   the entry waits outside the queue, for a slot of its connection or for a transfer worker
--   offered:   this worker cannot run the step; for `aside_ms` only other workers may claim it
--   removed:   the entry is stale, because the record is at another step, has expired, or its export has ended
--
-- Leases do not expire while Redis is unreachable, because no worker could renew them. When no worker has claimed for
-- `silence_ms`, the script protects every held step for `spare_ms`, so that its worker can save its result.
--
-- A step whose lease ended without a commit, release or hand-back may have killed its worker. Each such death is counted
-- in the record (`lost`). The first one delays nothing; after each further one the step waits about twice as long as before.
-- From `deaths_max` on, the step is claimed only to end its export, so it bypasses all limits as well.
--
-- Expired exports bypass all limits. A step whose export is past its deadline makes no call to the platform, so it needs
-- no slot, counts no request and is no probe. The same is true of a step that cancels, restarts or gives up an export.
-- Such a step needs no slot of this worker either (`slotless`), so that it ends its export although all slots are in use.
--
-- KEYS: queue, open, aside, contact, spared, clock, ring (ring: transfers only)
-- ARGV[1]: JSON object
--   now_ms, now          the time in ms, and as the timeline has it
--   role, owner          control or transfer; the name of this worker
--   max, scan_max        how many steps to claim that need a slot of this worker, and how many entries to examine
--   slotless_max         how many steps to claim that need no slot
--   search_max           how many further due entries to examine for steps that need no slot; 0: none
--   running, connection_max
--                        transfers only: how many steps of each connection this worker runs now (connection -> number),
--                        and how many of one connection it may run
--   lease_ms             how long a lease lasts
--   aside_ms             how long only other workers may claim an offered step
--   spare_ms, silence_ms see above
--   fence                a random integer below 2^52. The claimed steps get the versions fence, fence + 1, ..., which no
--                        earlier claim had, not even a claim that a fail-over of Redis has lost
--   prefix, wake         the namespace with its colon; the channel that wakes the workers of this role
--   timeline_max         how many notes a timeline keeps
--   deaths_max           how many workers may die in one step
--   limits               connection -> {slots, interval_ms, deadline_ms}
--   closed               control steps only: connection -> when (ms) it submits again. It is outside of its windows now
--   closed_stores        transfers only, may be missing: connection -> {name, admits}. This worker cannot use the store
--                        of the connection now, so it claims `admits` transfers at most for each name
-- Answer: JSON object
--   time_ms              the time that all processes use (clock.lua)
--   set_back_ms          by how much the clock of Redis was set back since the last claim; missing when it was not
--   next_due_ms          when the next entry is due; missing when there is none
--   steps                missing when nothing was claimed; a list of {export_id, step, version (string), claims, deaths,
--                        probe, spared, slotless, cancel, request, status, state, files, stored, retry, trace,
--                        requested_by, source, timeline (JSON texts, each on a line; missing when there are many),
--                        durations_ms (list of strings)}. status, state, files, stored (the list of stored files),
--                        request and trace are JSON texts of the record. A field that the record does not have is
--                        missing. probe: the step checks the platform first. spared: the calls of its kind fail for
--                        several exports, so such a failure uses no attempt.
local args = cjson.decode(ARGV[1])
local queue, open, aside, contact, spared, clock, ring = unpack(KEYS)
local now = args.now_ms
local owner_mark = '|' .. args.owner .. '|'
-- How long the sweep waits before it examines an export that has no queue entry.
local sweep_after_ms = 60000
-- A claim returns no longer timelines: they are read when the export ends.
local timeline_returned_max = 50
-- The longest wait after the death of a worker.
local death_wait_max_s = 32

-- A number in full: `..` and cjson keep 14 digits only.
local function int(number)
  return string.format('%.0f', number)
end

local function export_key(id)
  return args.prefix .. 'export:' .. id
end

local last_contact = tonumber(redis.call('GET', contact) or now)
local spared_until = tonumber(redis.call('GET', spared) or '0')
if now - last_contact >= args.silence_ms then
  spared_until = now + args.spare_ms
  redis.call('SET', spared, int(spared_until), 'PX', int(args.spare_ms))
end
redis.call('SET', contact, int(math.max(now, last_contact)), 'PX', 86400000)

local claimed = {}
-- How many of the claimed steps need a slot of this worker, and how many need none.
local taken, slotless = 0, 0
-- How many due entries stay in the queue, because there is no room for them.
local left, next_due = 0, nil
-- The entries that wait outside the queue, by the deadline of their exports.
local deadlines = args.prefix .. 'deadlines:' .. args.role

local function note_next_due(at)
  next_due = math.min(next_due or at, at)
end

local function postpone(job, id, until_ms)
  redis.call('ZADD', queue, int(until_ms), job)
  redis.call('ZADD', open, 'XX', int(until_ms), id)
end

-- Removes an entry from the queue. The sweep examines the export now and then, and when its deadline passes.
local function remove_from_queue(job, id, deadline_ms)
  redis.call('ZREM', queue, job)
  redis.call('ZADD', open, 'XX', int(math.min(now + sweep_after_ms, deadline_ms)), id)
end

-- Moves an entry from the queue into a row, where it waits for a slot of its connection or for a transfer worker.
local function wait_in_row(row, since, export, class)
  redis.call('ZADD', args.prefix .. row, since, export.job)
  add_turn(args.prefix, row, export.job, class or class_of(export.priority), export.requested_by or '')
  redis.call('ZADD', deadlines, int(export.deadline), export.job)
  remove_from_queue(export.job, export.id, export.deadline)
end

local function was_refused(refused)
  return refused and string.find(refused, owner_mark, 1, true)
end

-- Offers a step that this worker cannot run to the others. After `aside_ms` every worker may claim it again.
local function offer_to_others(job, id, refused)
  remove_from_queue(job, id, now + sweep_after_ms)
  redis.call('ZADD', aside, int(now + args.aside_ms), job)
  if not was_refused(refused) then
    redis.call('HSET', export_key(id), 'refused', (refused or '') .. owner_mark)
    redis.call('PUBLISH', args.wake, '')
  end
end

-- Returns when an export was accepted. `indexes.lua` has the time of each export with a number.
local function accepted_at(export)
  return export.number and created_of(args.prefix, export.number)
    or tonumber(redis.call('ZSCORE', args.prefix .. 'created', export.id) or now)
end

-- Returns when an export's deadline passes. For a record that no worker has saved yet it counts from acceptance.
local function deadline_of(export, deadline_ms)
  local since = tonumber(export.going or '') or accepted_at(export)
  -- Parsing the request costs time for each step, and few requests have a deadline.
  if string.find(export.request or '', 'deadline_s', 1, true) then
    local valid, request = pcall(cjson.decode, export.request)
    local deadline_s = valid and type(request) == 'table' and request.deadline_s
    if type(deadline_s) == 'number' then
      return since + deadline_s * 1000
    end
  end
  return since + deadline_ms
end

local function add_note(export, note)
  local timeline = args.prefix .. 'timeline:' .. export.id
  local entry = {at = args.now, phase = export.phase, step = tonumber(export.step), note = note}
  if redis.call('RPUSH', timeline, cjson.encode(entry)) > args.timeline_max then
    redis.call('LTRIM', timeline, -args.timeline_max, -1)
  end
end

-- How many deaths this run of the script has counted.
local counted = 0

-- Returns the wait after a further death. All steps of a dead worker are due at once. Their waits differ, so that the step
-- that kills its workers is not claimed together with the same others each time.
local function death_wait_s(deaths)
  counted = counted + 1
  local spread = (args.fence + counted * 389) % 997 / 997
  return math.min(2 ^ (deaths - 2), death_wait_max_s) * (1 - spread / 2)
end

-- Counts the death of the worker that held this step. Returns for how many ms no worker may claim the step.
local function count_death(export)
  local key = export_key(export.id)
  export.deaths, export.released = redis.call('HINCRBY', key, 'lost', 1), 'died'
  -- No worker holds the step now, so the death is counted once, however long the step waits.
  redis.call('HSET', key, 'released', 'died')
  if export.deaths == 1 or export.deaths == args.deaths_max or export.cancel or export.retry then
    return 0
  end
  local wait_s = death_wait_s(export.deaths)
  add_note(export, string.format('worker stopped responding, number %d in this step; the next worker may claim it '
    .. 'after %.1f s', export.deaths, wait_s))
  return wait_s * 1000
end

local ended = {succeeded = true, failed = true, cancelled = true}

-- Reads the record behind an entry. Returns nil when this worker has nothing to do for it now.
local function read(job)
  local id, step = string.match(job, '([^:]+):(%d+)$')
  local record = redis.call('HMGET', export_key(id or ''), 'step', 'connection', 'phase', 'cancel', 'retry', 'claims',
    'released', 'going', 'request', 'refused', 'lost', 'number', 'priority', 'requested_by', 'share', 'source')
  if record[1] ~= step or ended[record[3]] then
    redis.call('ZREM', queue, job)
    if ended[record[3]] or not record[3] then
      redis.call('ZREM', open, id or '')
    end
    return nil
  end
  local cancel, retry, refused = record[4], record[5], record[10]
  local export = {
    job = job, id = id, step = step, connection = record[2], phase = record[3], claims = record[6],
    released = record[7], going = record[8], request = record[9], limits = args.limits[record[2]],
    cancel = cancel, retry = retry, deaths = tonumber(record[11] or '') or 0, number = tonumber(record[12] or ''),
    priority = record[13], requested_by = record[14] or nil, share = record[15] or nil, source = record[16] or nil,
  }
  local lapsed = export.claims and not export.released
  if now < spared_until and lapsed then
    postpone(job, id, spared_until)
    return nil
  end
  local wait = lapsed and count_death(export) or 0
  -- A step that cancels, restarts, takes over or gives up an export makes no call that the limits are for.
  export.calls_platform = not cancel and not retry and not export.source and export.deaths < args.deaths_max
  if wait > 0 then
    postpone(job, id, now + wait)
    return nil
  end
  if export.calls_platform and ((not export.limits and refused ~= 'all') or was_refused(refused)) then
    offer_to_others(job, id, refused)
    return nil
  end
  return export
end

local known_durations = {}

-- The durations of the last operations of a kind on a connection, or nil. Read once for all steps that are claimed.
local function durations_of(connection, kind)
  if args.role ~= 'control' then
    return nil
  end
  local key = args.prefix .. 'durations:' .. connection .. ':' .. (kind or '')
  known_durations[key] = known_durations[key] or redis.call('LRANGE', key, 0, -1)
  return #known_durations[key] > 0 and known_durations[key] or nil
end

local function claim(export, probe)
  local key = export_key(export.id)
  postpone(export.job, export.id, now + args.lease_ms)
  redis.call('ZREM', deadlines, export.job)
  local version = int(args.fence + #claimed)
  redis.call('HSET', key, 'version', version)
  local claims = redis.call('HINCRBY', key, 'claims', 1)
  if export.released then
    redis.call('HDEL', key, 'released')
  end
  if claims > 1 then
    add_note(export, export.released == 'died' and 'resumed: its previous worker stopped responding'
      or 'resumed: its previous worker shut down')
  end
  local record = redis.call('HMGET', key, 'status', 'state', 'trace', 'kind', 'files')
  local stored = record[5] and redis.call('LRANGE', args.prefix .. 'stored:' .. export.id, 0, -1)
  local timeline = redis.call('LRANGE', args.prefix .. 'timeline:' .. export.id, 0, timeline_returned_max)
  if export.slotless then
    slotless = slotless + 1
  else
    taken = taken + 1
  end
  claimed[#claimed + 1] = {
    export_id = export.id, step = tonumber(export.step), version = version, claims = claims,
    deaths = export.deaths, probe = probe, spared = export.spared or false, slotless = export.slotless or false,
    cancel = export.cancel and true or false, retry = export.retry or nil, request = export.request or nil,
    status = record[1] or nil, state = record[2] or nil, files = record[5] or nil,
    stored = stored and '[' .. table.concat(stored, ',') .. ']' or nil, trace = record[3] or nil,
    requested_by = export.requested_by, source = export.source,
    timeline = #timeline <= timeline_returned_max and table.concat(timeline, '\n') or nil,
    durations_ms = durations_of(export.connection, record[4]),
  }
end

-- Returns the export behind an entry, with its deadline, if the limits of its connection apply. Otherwise claims the
-- step, if this worker may, and returns nil.
local function limited_export(job)
  local export = read(job)
  if not export then
    return nil
  end
  export.deadline = export.limits and deadline_of(export, export.limits.deadline_ms)
  export.slotless = not export.calls_platform or not export.limits or export.deadline <= now
  if not export.slotless then
    return export
  end
  if slotless < args.slotless_max then
    claim(export, false)
  else
    redis.call('ZADD', queue, 'NX', int(now), job)
    left = left + 1
  end
  return nil
end

-- Handles entries one by one. An error on one damaged record must not stop all others, so the entry is postponed. When
-- Redis itself refuses writes, this fails as well, and the caller gets the error.
local function each(jobs, handle)
  for _, job in ipairs(jobs) do
    if not pcall(handle, job) then
      redis.call('ZADD', queue, int(now + 60000), job)
    end
  end
end

-- Handles the due entries of the queue, as long as `free()` is above 0.
local function each_due(free, handle)
  local scanned = 0
  while free() > 0 and scanned < args.scan_max do
    local due = redis.call('ZRANGEBYSCORE', queue, '-inf', int(now), 'LIMIT', left, math.max(free(), compared_max))
    due = first_in_turn(args.prefix, due, free(), args.fence)
    if #due == 0 then
      break
    end
    each(due, handle)
    scanned = scanned + #due
  end
end

-- Claims the steps of exports that wait outside the queue and whose deadline has passed.
local function claim_expired()
  local room = args.slotless_max - slotless
  local expired = room > 0 and redis.call('ZRANGEBYSCORE', deadlines, '-inf', int(now), 'LIMIT', 0, room) or {}
  for _, job in ipairs(expired) do
    redis.call('ZREM', deadlines, job)
    local connection = redis.call('HGET', export_key(string.match(job, '([^:]+):%d+$')), 'connection')
    local row = args.prefix .. (args.role == 'transfer' and 'waiting:' or 'parked:') .. (connection or '')
    if redis.call('ZREM', row, job) == 1 then
      redis.call('ZADD', queue, 'NX', int(now), job)
      each({job}, limited_export)
    end
  end
end

-- Examines due entries for steps that need no slot. If there are many, each call examines others, chosen at random.
local function search_slotless()
  local due = args.search_max > 0 and redis.call('ZCOUNT', queue, '-inf', int(now)) or 0
  local first = due > args.search_max and args.fence % (due - args.search_max + 1) or 0
  if due > 0 and slotless < args.slotless_max then
    each(redis.call('ZRANGEBYSCORE', queue, '-inf', int(now), 'LIMIT', int(first), args.search_max), limited_export)
  end
end

-- Opens an entry that no other worker has claimed in time to every worker again.
local function end_offer(job)
  redis.call('ZREM', aside, job)
  local key = export_key(string.match(job, '([^:]+):%d+$'))
  if redis.call('HEXISTS', key, 'refused') == 1 then
    redis.call('HSET', key, 'refused', 'all')
    redis.call('ZADD', queue, 'NX', int(now), job)
  end
end

-- Handles an entry that another worker has offered, unless this worker has refused it, too.
local function accept_offer(job, handle)
  local id = string.match(job, '([^:]+):%d+$')
  if was_refused(redis.call('HGET', export_key(id), 'refused')) then
    return
  end
  redis.call('ZREM', aside, job)
  -- An entry that is in the queue as well was enqueued again meanwhile, and a worker may hold it.
  if not redis.call('ZSCORE', queue, job) then
    each({job}, handle)
  end
end

-- Ends the offers that are over. Returns when the first of the others ends, or nil.
local function end_offers()
  local first = redis.call('ZRANGE', aside, 0, 0, 'WITHSCORES')
  if first[2] and tonumber(first[2]) <= now then
    for _, job in ipairs(redis.call('ZRANGEBYSCORE', aside, '-inf', int(now), 'LIMIT', 0, args.scan_max)) do
      end_offer(job)
    end
    first = redis.call('ZRANGE', aside, 0, 0, 'WITHSCORES')
  end
  return tonumber(first[2] or '')
end

-- Handles the entries that other workers have offered.
local function each_offered(handle)
  local first_end = end_offers()
  if not first_end then
    return
  end
  note_next_due(first_end)
  for _, job in ipairs(redis.call('ZRANGE', aside, 0, 99)) do
    if taken >= args.max then
      return
    end
    accept_offer(job, handle)
  end
end

local function answer()
  local first = redis.call('ZRANGE', queue, 0, 0, 'WITHSCORES')
  if first[2] then
    note_next_due(tonumber(first[2]))
  end
  local time_ms, set_back_ms = shared_time(clock)
  return cjson.encode({
    time_ms = time_ms,
    set_back_ms = set_back_ms > 0 and set_back_ms or nil,
    next_due_ms = next_due and tonumber(int(next_due)),
    steps = #claimed > 0 and claimed or nil,
  })
end
