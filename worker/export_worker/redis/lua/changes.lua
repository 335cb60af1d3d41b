-- The stream of changes of exports, from which consoles know what to read again. Other scripts are joined to this file.
-- The prefix is the namespace with its colon.

-- How many changes are kept, and for how long: a client that was disconnected for longer reads its page again.
local changes_max = 5000
local changes_kept_ms = 3600000

-- Appends to the stream of changes that an export is in a phase now, and was in another one, or in none (nil). The user
-- of a producer may not have the right to do so; then it is left out.
local function add_change(prefix, id, connection, kind, phase, was)
  local changes = prefix .. 'changes'
  redis.pcall('XADD', changes, 'MAXLEN', '~', changes_max, '*', 'id', id, 'connection', connection, 'kind', kind,
    'phase', phase, 'was', was or '')
  redis.call('PEXPIRE', changes, changes_kept_ms)
end
