-- lua5.1 test.lua, in this folder: what the scripts say of a ModelDeployment in each state.
local failures = 0

local function run(file, object)
  obj = object
  return assert(loadfile(file))()
end

local function expect(name, actual, expected)
  if actual ~= expected then
    failures = failures + 1
    print(name .. ": expected " .. tostring(expected) .. ", not " .. tostring(actual))
  end
end

local function object(conditions, observed)
  local list = {}
  for type, condition in pairs(conditions) do
    table.insert(list, { type = type, status = condition[1], reason = condition[2], message = condition[3] or "" })
  end
  return { metadata = { generation = 2 }, status = { observedGeneration = observed or 2, conditions = list } }
end

local T, F = "True", "False"
local states = {
  { "never seen", "Progressing", { metadata = { generation = 1 } } },
  { "spec not seen yet", "Progressing", object({ Ready = { T, "Stable" } }, 1) },
  { "no conditions", "Degraded", object({}) },
  { "stable", "Healthy", object({ Ready = { T, "Stable" } }) },
  { "first revision comes up", "Progressing", object({ Ready = { F, "Initializing" }, Reconciling = { T, "Initializing" } }) },
  { "nobody answers in a rollout", "Degraded", object({ Ready = { F, "Unavailable" }, Reconciling = { T, "Analyzing" } }) },
  { "rollout", "Progressing", object({ Ready = { T, "Stable" }, Reconciling = { T, "Analyzing", "5%" } }) },
  { "pause step", "Suspended", object({ Ready = { T, "Stable" }, Reconciling = { T, "PauseStep" }, Paused = { T, "PauseStep" } }) },
  { "no verdict in time", "Suspended", object({ Ready = { T, "Stable" }, Stalled = { T, "HoldExceeded" }, Paused = { T, "HoldExceeded" } }) },
  { "rolled back", "Degraded", object({ Ready = { T, "Stable" }, Stalled = { T, "GateFailed" }, RolledBack = { T, "GateFailed" } }) },
  { "rolled back and paused", "Degraded", object({ Ready = { T, "Stable" }, Stalled = { T, "GateFailed" }, Paused = { T, "UserPaused" } }) },
  { "stable pods missing", "Progressing", object({ Ready = { T, "Stable" }, Reconciling = { T, "Degraded" } }) },
  { "host of another one", "Degraded", object({ Ready = { T, "Stable" }, Conflicted = { T, "HostnameConflict" } }) },
  { "rollout with the host of another one", "Progressing", object({ Ready = { T, "Stable" }, Reconciling = { T, "Analyzing" }, Conflicted = { T, "HostnameConflict" } }) },
  { "spec that cannot be acted on", "Degraded", object({ Ready = { T, "Stable" }, Stalled = { T, "InvalidSpec", "fix it" } }) },
}
for _, state in ipairs(states) do
  expect(state[1], run("health.lua", state[3]).status, state[2])
end
expect("message", run("health.lua", states[7][3]).message, "Analyzing: 5%")

local function offered(stage)
  local status = { rollout = stage and { stage = stage } }
  return run("actions/discovery.lua", { metadata = {}, status = status })
end
expect("abort without a rollout", offered(nil)["abort"].disabled, true)
expect("abort in a rollout", offered("Analyzing")["abort"].disabled, false)
expect("retry in a rollout", offered("Analyzing")["retry"].disabled, true)
expect("retry after an abort", offered("Aborted")["retry"].disabled, false)
expect("promote after an abort", offered("Aborted")["promote"].disabled, true)

expect("pause in a rollout", offered("Analyzing")["pause"].disabled, false)
expect("resume of what is not paused", offered("Analyzing")["resume"].disabled, true)

local function commanded(rollout)
  local all = run("actions/command.lua", { metadata = {}, status = { rollout = rollout } }).metadata.annotations
  return all["ml.slipway.dev/COMMAND"]
end
expect("length of the nonce", #commanded(nil), 20)
expect("what it is for", string.sub(commanded({ revision = "0123456789", stepIndex = 2 }), 1, 13), "0123456789/-/")

if failures > 0 then
  os.exit(1)
end
