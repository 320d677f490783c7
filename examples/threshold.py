"""A policy with one parameter, compared with the tuned constant policy. In this folder:

python threshold.py
partway compare --scenario ocr --schemes constant priced threshold:Threshold
partway compare --scenario ocr --schemes threshold:Threshold --set schemes.threshold:Threshold.limit=2
"""

import jax.numpy as jnp

import partway


class Threshold(partway.DeviceController):
    """Starts two tasks per block, three when more than `limit` wait; offloads less of the last one on a bad channel."""

    limit: float = 3.0

    def act(self, state, device, view, key):
        offload = jnp.where(view.gain > 0.1 * device.mean_gain, 1.0, 0.5)
        started = jnp.where(view.q > self.limit, 3.0, 2.0)
        started = jnp.minimum(started, partway.most_startable(device, view.q, offload))
        return partway.DeviceAction(started=started, offload=offload)


if __name__ == "__main__":
    partway.SCHEMES["threshold"] = partway.Scheme("queue threshold", Threshold(), partway.SCHEMES["priced"].server)
    for scheme in partway.summarise(partway.compare("ocr", schemes=["constant", "threshold"], blocks=400)):
        print(f"{scheme.name}: {scheme.cost.mean:.1f} per block, 95 % of tasks within {scheme.latency_s['p95']:.2f} s")
