"""A policy that learns which fraction of a task to offload, compared with the tuned constant policy. In this folder:

    python bandit.py
    partway compare --scenario ocr --schemes constant bandit:Bandit
    partway compare --scenario ocr --schemes bandit:Bandit --set schemes.bandit:Bandit.explore=0.2

The fraction changes the energy of this block and what the offloaded work costs at the server, nothing else: the next
queue depends on the number of started tasks alone. So the mean cost of each fraction is all there is to learn.
"""

import jax.numpy as jnp

import partway


class Bandit(partway.DeviceController):
    """Offloads none, half or all of the last task: what has cost least on average, now and then a random choice."""

    uses_broadcast = ("price",)
    explore: float = 0.05

    def init(self, device, view, key):
        return jnp.zeros(3)  # the mean cost of each choice; 0 makes the device try all of them first

    def act(self, state, device, view, key):
        chance, other = partway.uniform(key, (2,), view.q.dtype)
        choice = jnp.where(chance < self.explore, jnp.floor(3 * other), jnp.argmin(state))
        return partway.DeviceAction(started=jnp.minimum(view.q, 3.0), offload=choice / 2)

    def learn(self, state, device, view, action, cost, next_view):
        energy = cost - device.queue_weight * view.q
        paid = energy + view.broadcast.price * action.offload * device.server_work
        choice = jnp.round(2 * action.offload).astype(int)
        return state.at[choice].add(0.05 * (paid - state[choice]))


if __name__ == "__main__":
    partway.SCHEMES["bandit"] = partway.Scheme("learned offload", Bandit(), partway.SCHEMES["priced"].server)
    for scheme in partway.summarise(partway.compare("ocr", schemes=["constant", "bandit"], blocks=2000)):
        print(f"{scheme.name}: {scheme.cost.mean:.1f} per block, 95 % of tasks within {scheme.latency_s['p95']:.2f} s")
