-- Returns the state of the whole namespace at one moment. It writes nothing. `indexes.lua` of the worker is loaded before
-- this file. The work grows with the number of connections, kinds, sinks, triggers and workers, and not with the exports.
--
-- KEYS: connections, limits, pauses, sinks, triggers, workers
-- ARGV[1]: JSON object
--   prefix               the namespace with its colon
--   now_ms, alive_ms     the time, and when a running worker has written its record at the earliest
--   hours                the starts (ms) of this hour and of the hour before, as texts
--   workers_max, events_max, names_max
--                        how many workers, events of a sink, and names of connections, kinds, sinks or triggers are read
-- Answer: JSON object
--   phases               phase -> exports
--   complete             whether every export is in the indexes: the sweep has migrated those of an earlier version
--   connections          name -> object of `connection_of`
--   queue                role -> {due, oldest_ms, aside}
--   workers              list of their records (JSON texts); missing when none runs
--   sinks                name -> {type, pending, refused_ms, given_up, delivered (list of `ID MS AGE_MS`, or missing)}
--   triggers             name -> {about (JSON text), dead, first_unread (id of an entry, or "" when all are read),
--                        last_read (id of an entry)}
--   memory, persistence  the sections of INFO; missing when the user may not read them
local args = cjson.decode(ARGV[1])
local connections, limits, pauses, sinks, triggers, workers = unpack(KEYS)
local prefix = args.prefix
local has_old = redis.call('EXISTS', prefix .. 'created') == 1

-- Returns the first names and values of a hash as pairs, sorted by name.
local function pairs_of(hash)
  local fields = redis.call('HGETALL', hash)
  local found = {}
  for position = 1, #fields, 2 do
    found[#found + 1] = {fields[position], fields[position + 1]}
  end
  table.sort(found, function(one, other) return one[1] < other[1] end)
  return {unpack(found, 1, args.names_max)}
end

-- Returns the score of the first entry of a sorted set from a score on, or nil.
local function first_score(set, from, to)
  return tonumber(redis.call('ZRANGEBYSCORE', set, from, to, 'WITHSCORES', 'LIMIT', 0, 1)[2] or '')
end

local function earlier(one, other)
  return one and other and math.min(one, other) or one or other
end

-- Returns how many exports an earlier version has put into a sorted set, and the sweep has not given a number yet.
local function old_size(set)
  return has_old and redis.call('ZCARD', prefix .. set) or 0
end

local function counts_of(name)
  local code, counts = known_code(prefix, 'connection', name), {}
  local tally = code and redis.call('GETRANGE', prefix .. 'tally', code * 4, code * 4 + 27) or ''
  for phase, phase_code in pairs(phase_codes) do
    counts[phase] = total_in(tally, phase_code) + old_size('by-place:' .. name .. ':' .. phase)
  end
  local oldest = code and redis.call('ZRANGE', prefix .. 'open-of:' .. code, 0, 0)[1]
  local oldest_ms = oldest and created_of(prefix, tonumber(oldest)) or nil
  for _, phase in ipairs(has_old and {'queued', 'running', 'transferring'} or {}) do
    oldest_ms = earlier(oldest_ms, first_score(prefix .. 'by-place:' .. name .. ':' .. phase, '-inf', '+inf'))
  end
  return counts, oldest_ms
end

-- Returns the failures of a breaker and the end of its pause; nil if calls succeed.
local function breaker_of(connection, kind, counter)
  local found = redis.call('HMGET', prefix .. 'breaker:' .. connection .. kind, counter, 'until')
  return (found[1] or found[2]) and {failures = found[1] or '0', ['until'] = found[2] or nil} or nil
end

-- Returns the first values of a facet that exports have.
local function names_of(facet)
  local names = redis.call('HKEYS', prefix .. 'codes:' .. facet)
  table.sort(names)
  return {unpack(names, 1, args.names_max)}
end

local kinds = names_of('kind')

local function durations_of(connection)
  local durations = {}
  for _, kind in ipairs(kinds) do
    local found = redis.call('LRANGE', prefix .. 'durations:' .. connection .. ':' .. kind, 0, -1)
    durations[kind] = #found > 0 and found or nil
  end
  return durations
end

local function recent_of(connection)
  local recent = {}
  for _, hour in ipairs(args.hours) do
    local fields = redis.call('HGETALL', prefix .. 'recent:' .. connection .. ':' .. hour)
    for position = 1, #fields, 2 do
      recent[fields[position]] = fields[position + 1]
    end
  end
  return recent
end

local function connection_of(name, platform)
  local counts, oldest_ms = counts_of(name)
  return {
    platform = platform,
    phases = counts,
    oldest_ms = oldest_ms,
    used = redis.call('ZCARD', prefix .. 'slots:' .. name),
    limit = redis.call('HGET', limits, name) or nil,
    pause = redis.call('HGET', pauses, name) or nil,
    closed_ms = tonumber(redis.call('ZSCORE', prefix .. 'closed', name) or ''),
    parked = redis.call('ZCARD', prefix .. 'parked:' .. name),
    waiting = redis.call('ZCARD', prefix .. 'waiting:' .. name),
    breakers = {
      platform = breaker_of(name, '', 'pauses'),
      submit = breaker_of(name, ':submit', 'failures'),
      poll = breaker_of(name, ':poll', 'failures'),
      transfer = breaker_of(name, ':transfer', 'failures'),
    },
    durations = durations_of(name),
    recent = recent_of(name),
  }
end

-- Returns every connection that workers have announced, or of which exports are stored.
local function all_connections()
  local found = {}
  for _, announced in ipairs(pairs_of(connections)) do
    found[announced[1]] = connection_of(announced[1], announced[2])
  end
  for _, name in ipairs(names_of('connection')) do
    found[name] = found[name] or connection_of(name, nil)
  end
  return found
end

-- Due transfers move from the queue to a set of their connection. There, a resumed transfer has the score 0.
local function queue_of(role, found)
  local queue = prefix .. 'queue:' .. role
  local due = redis.call('ZCOUNT', queue, '-inf', args.now_ms)
  local oldest_ms = first_score(queue, '(0', args.now_ms)
  if role == 'transfer' then
    for name, connection in pairs(found) do
      due = due + connection.waiting
      oldest_ms = earlier(oldest_ms, first_score(prefix .. 'waiting:' .. name, '(0', '+inf'))
    end
  end
  return {due = due, oldest_ms = oldest_ms, aside = redis.call('ZCARD', prefix .. 'aside:' .. role)}
end

local function running_workers()
  local owners = redis.call('ZREVRANGEBYSCORE', workers, '+inf', args.alive_ms, 'LIMIT', 0, args.workers_max)
  local records = {}
  for _, owner in ipairs(owners) do
    records[#records + 1] = redis.call('GET', prefix .. 'worker:' .. owner) or nil
  end
  return #records > 0 and records or nil
end

-- Returns when one of the next events of a sink was refused first, or nil.
local function first_refusal(sink)
  local events = redis.call('ZRANGE', prefix .. 'to-deliver:' .. sink, 0, args.events_max - 1)
  local first_ms = nil
  if #events > 0 then
    for _, refusal in ipairs(redis.call('HMGET', prefix .. 'refusals:' .. sink, unpack(events))) do
      first_ms = earlier(first_ms, refusal and tonumber(string.match(refusal, ':(%d+)')) or nil)
    end
  end
  return first_ms
end

local function all_sinks()
  local found = {}
  for _, announced in ipairs(pairs_of(sinks)) do
    local name = announced[1]
    local delivered = redis.call('LRANGE', prefix .. 'delivered:' .. name, 0, args.events_max - 1)
    found[name] = {
      type = announced[2],
      pending = redis.call('ZCARD', prefix .. 'to-deliver:' .. name),
      refused_ms = first_refusal(name),
      given_up = redis.call('HLEN', prefix .. 'undelivered:' .. name),
      delivered = #delivered > 0 and delivered or nil,
    }
  end
  return found
end

-- Returns the answer of a command, or nil where the user may not run it or the stream does not exist.
local function allowed(...)
  local answer = redis.pcall(...)
  return (type(answer) ~= 'table' or not answer.err) and answer or nil
end

-- Returns the ids of the first entry of a stream that a group has not read, "" if there is none, and of the last one that
-- it has read; nothing if they are unknown.
local function entries_of(stream, group)
  for _, found in ipairs(allowed('XINFO', 'GROUPS', stream) or {}) do
    local fields = {}
    for position = 1, #found, 2 do
      fields[found[position]] = found[position + 1]
    end
    if fields.name == group then
      local unread = allowed('XRANGE', stream, '(' .. fields['last-delivered-id'], '+', 'COUNT', 1)
      return unread and (unread[1] and unread[1][1] or ''), fields['last-delivered-id']
    end
  end
  return nil
end

local function all_triggers()
  local found = {}
  for _, announced in ipairs(pairs_of(triggers)) do
    local valid, about = pcall(cjson.decode, announced[2])
    local stream = valid and type(about) == 'table' and about.stream
    local first_unread, last_read
    if stream then
      first_unread, last_read = entries_of(stream, about.group)
    end
    found[announced[1]] = {
      about = announced[2],
      dead = allowed('XLEN', prefix .. 'dead:' .. announced[1]),
      first_unread = first_unread or nil,
      last_read = last_read,
    }
  end
  return found
end

local counts, tally = {}, redis.call('GETRANGE', prefix .. 'tally', 0, 27)
for phase, code in pairs(phase_codes) do
  counts[phase] = total_in(tally, code) + old_size('phase:' .. phase)
end
local found = all_connections()
return cjson.encode({
  phases = counts,
  complete = not has_old,
  connections = found,
  queue = {control = queue_of('control', found), transfer = queue_of('transfer', found)},
  workers = running_workers(),
  sinks = all_sinks(),
  triggers = all_triggers(),
  memory = allowed('INFO', 'memory'),
  persistence = allowed('INFO', 'persistence'),
})
