"""A policy of your own beside the tuned constant.

From this folder:  partway compare --scenario ocr --schemes constant exact channel_aware:ChannelAware
"""

import jax.numpy as jnp

import partway


@partway.record
class ChannelAware(partway.DeviceController):
    """Sends a whole task when the channel is better than usual, `otherwise` of one when it is not."""

    otherwise: float = 0.0

    def act(self, memory, device, view, key):
        offload = jnp.where(view.gain > device.mean_gain, 1.0, self.otherwise)
        return partway.DeviceAction(whole=partway.drain(device, view.q, offload), offload=offload)


if __name__ == "__main__":
    partway.SCHEMES["channel-aware"] = partway.Scheme(
        "sends on good channels only", ChannelAware(), partway.SCHEMES["exact"].server
    )
    data = partway.compare("ocr", schemes=["constant", "exact", "channel-aware"], blocks=1000)
    for scheme in partway.summarise(data):
        print(f"{scheme.name:15} {scheme.cost.mean:7.1f} a block, 95 % of tasks within {scheme.latency_s['p95']:.2f} s")
