"""A policy that learns how much of a task to offload, by channel and by number of tasks started. In this folder:

    python bandit.py
    partway compare --scenario ocr --schemes constant bandit:Bandit
    partway compare --scenario ocr --schemes bandit:Bandit --set schemes.bandit:Bandit.explore=0.2

The offloaded fraction changes the energy of this block and the price paid for the server's work, nothing else: the
device's next queue depends on the number of tasks started alone. So the average of what each fraction has cost is all
there is to learn, a contextual bandit. The number of tasks to start is a fixed rule.
"""

import jax.numpy as jnp

import partway

CHANNELS = 4
"""Classes of the channel gain: below 1/4, 1/2 and 3/4 of its mean, and above."""
STARTED = 3
"""Most tasks started in a block."""
OFFLOADS = (0.0, 0.5, 1.0)


class Bandit(partway.DeviceController):
    """Epsilon-greedy over the fractions OFFLOADS; `state` (STARTED + 1, CHANNELS, 3) is what each has cost on average.

    limit    tasks in the queue above which three are started instead of two
    step     step size of the averages
    explore  probability of a random fraction
    """

    uses_broadcast = ("price",)
    limit: float = 2.0
    step: float = 0.1
    explore: float = 0.1

    def init(self, device, view, key):
        return jnp.full((STARTED + 1, CHANNELS, len(OFFLOADS)), jnp.inf, view.q.dtype)  # inf: never tried

    def act(self, state, device, view, key):
        started = jnp.minimum(view.q, jnp.where(view.q > self.limit, 3.0, 2.0))
        best = jnp.argmin(state[context(device, view, started)])
        explore, arm = partway.uniform(key, (2,), view.q.dtype)
        arm = jnp.where(explore < self.explore, (arm * len(OFFLOADS)).astype(int), best)
        return partway.DeviceAction(started=started, offload=jnp.asarray(OFFLOADS, view.q.dtype)[arm])

    def learn(self, state, device, view, action, cost, next_view):
        """`action` is what happened: the nearest fraction at which this network can be cut, if the radio allows it."""
        at = (*context(device, view, action.started), jnp.argmin(jnp.abs(jnp.asarray(OFFLOADS) - action.offload)))
        energy_cost = cost - device.queue_weight * view.q
        paid = energy_cost + view.broadcast.price * action.offload * device.server_work
        known = jnp.where(jnp.isinf(state[at]), paid, state[at])
        return state.at[at].set(known + self.step * (paid - known))


def context(device, view, started):
    """Row of the table: (tasks started, class of the channel)."""
    channel = jnp.minimum(CHANNELS * view.gain / device.mean_gain, CHANNELS - 1.0)
    return jnp.clip(started, 0, STARTED).astype(int), channel.astype(int)


if __name__ == "__main__":
    partway.SCHEMES["bandit"] = partway.Scheme("learned offload", Bandit(), partway.SCHEMES["priced"].server)
    for scheme in partway.summarise(partway.compare("ocr", schemes=["constant", "bandit"], blocks=2000)):
        print(f"{scheme.name}: {scheme.cost.mean:.1f} per block, 95 % of tasks within {scheme.latency_s['p95']:.2f} s")
