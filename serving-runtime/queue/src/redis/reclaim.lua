-- One job whose worker let its lease run out. XAUTOCLAIM does the same in one command, but looks at no more than ten entries for each one
-- that it may return, and would not get past the healthy ones at the head of the list.
local consumer, lease = ARGV[1], ARGV[2]
for _, p in ipairs(PRIORITIES) do
  local s = stream(p)
  local idle = redis.pcall('XPENDING', s, GROUP, 'IDLE', lease, '-', '+', 1)
  if not idle.err then
    while idle[1] do
      local entry, deliveries = idle[1][1], idle[1][4]
      local got = redis.call('XCLAIM', s, GROUP, consumer, lease, entry)
      if got[1] then
        local id, payload = fields(got[1][2])
        return {p, entry, id, payload, deliveries + 1}
      end
      -- Its entry is gone, and XCLAIM has taken it off the list.
      idle = redis.call('XPENDING', s, GROUP, 'IDLE', lease, '-', '+', 1)
    end
  end
end
return false
