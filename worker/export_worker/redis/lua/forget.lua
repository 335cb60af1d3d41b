-- Removes ended exports whose retention has passed from every index. Their records expire by themselves. `indexes.lua` is
-- loaded before this file.
--
-- KEYS: ended, created, the index of each phase
-- ARGV[1]: JSON object
--   prefix               the namespace with its colon
--   until_ms, max        exports that ended by then are removed, at most so many
--   facets               the facets that have indexes
-- Answer: forgotten
local args = cjson.decode(ARGV[1])
local expired = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', args.until_ms, 'LIMIT', 0, args.max)
if #expired > 0 then
  for _, index in ipairs(KEYS) do
    redis.call('ZREM', index, unpack(expired))
  end
  -- A record that has expired does not say in which indexes it was. There are few of them.
  for _, facet in ipairs(args.facets) do
    for _, value in ipairs(values_of(args.prefix, facet)) do
      remove_from_index(args.prefix, facet, value, expired)
    end
  end
end
return 'forgotten'
