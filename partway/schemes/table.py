"""SCHEMES: what can be compared.

A new policy is one controller and one row here, or `mymodule:MY_SCHEME` from outside. The command line, sweeps, figures
and the contract test find it by its row. Rows name their controllers; they are imported when they are first used, so
that names and descriptions can be listed without JAX.
"""

from partway.schemes.scheme import Scheme, controller

LEARNING_SERVER = controller("price:PostDecisionServer")
ALGORITHM_2 = controller("parametric:Algorithm2")
SCHEMES: dict[str, Scheme] = {
    "parametric-printed": Scheme(
        "Algorithms 1 and 2 of the paper with the gradients that it prints",
        controller("parametric:Algorithm1", gradient="printed"),
        controller("parametric:Algorithm2", gradient="printed"),
        stream="printed",
        signals=(1, 0),
    ),
    "parametric": Scheme(
        "Algorithms 1 and 2 of the paper with the true gradient of the squared TD error",
        controller("parametric:Algorithm1", gradient="exact"),
        controller("parametric:Algorithm2", gradient="exact"),
        stream="exact",
        signals=(1, 0),
    ),
    "qlearning": Scheme(
        "Q-learning on the paper's features, with the minimum over actions that its text describes",
        controller("qlearning:QLearningDevice"),
        controller("qlearning:QLearningServer"),
        signals=(1, 0),
    ),
    "qlearning-log": Scheme(
        "`qlearning` with power, gain and server queue on a logarithmic scale",
        controller("qlearning:QLearningDevice", log_scaled=True),
        controller("qlearning:QLearningServer", log_scaled=True),
        signals=(1, 0),
    ),
    "binary": Scheme(
        "offloads all of a task or nothing, learned by Q-learning",
        controller("qlearning:Binary"),
        ALGORITHM_2,
        channel_blind=True,
        signals=(1, 0),
    ),
    "even": Scheme(
        "every device offloads the same amount, the server's rate divided by K",
        controller("baselines:Even"),
        ALGORITHM_2,
        channel_blind=True,
        signals=(1, 1),
    ),
    "random": Scheme(
        "offloads a random fraction",
        controller("baselines:Random"),
        ALGORITHM_2,
        channel_blind=True,
        signals=(1, 0),
    ),
    "local": Scheme("offloads nothing", controller("baselines:Local"), LEARNING_SERVER, signals=(0, 0)),
    "full": Scheme(
        "computes nothing on the device, offloads one whole task per block",
        controller("baselines:Full"),
        LEARNING_SERVER,
        fractional=False,
        channel_blind=True,
        signals=(0, 0),
    ),
    "myopic": Scheme(
        "minimises this block's cost and one block of waiting for the tasks that remain",
        controller("related_work:Myopic"),
        LEARNING_SERVER,
        fractional=False,
        signals=(0, 0),
    ),
    "drift": Scheme(
        "Lyapunov drift plus V times the energy (Mao et al. 2017)",
        controller("related_work:Drift"),
        LEARNING_SERVER,
        fractional=False,
        signals=(0, 1),
    ),
    "neurosurgeon": Scheme(
        "the cut of least latency at the server's broadcast rate and backlog (Kang et al. 2017)",
        controller("related_work:Neurosurgeon"),
        LEARNING_SERVER,
        channel_blind=True,
        signals=(0, 2),
    ),
    "neurosurgeon-energy": Scheme(
        "the cut of least device energy (Kang et al. 2017)",
        controller("related_work:NeurosurgeonEnergy"),
        LEARNING_SERVER,
        signals=(0, 0),
    ),
    "dads": Scheme(
        "the cut whose slowest stage is fastest (Hu et al. 2019)",
        controller("related_work:Dads"),
        LEARNING_SERVER,
        channel_blind=True,
        signals=(0, 1),
    ),
    "ans": Scheme(
        "a bandit that learns the delay of what is offloaded (Zhang et al. 2021)",
        controller("related_work:Ans"),
        LEARNING_SERVER,
        channel_blind=True,
        signals=(0, 2),
    ),
    "coedge": Scheme(
        "least device energy that finishes the first task within the block (Zeng et al. 2021)",
        controller("related_work:CoEdge"),
        LEARNING_SERVER,
        signals=(0, 2),
    ),
    "iao": Scheme(
        "least latency at a share of the server's rate set by greedy exchange (Tang et al. 2021)",
        controller("iao:Iao"),
        controller("iao:IaoServer", serving=LEARNING_SERVER),
        channel_blind=True,
        signals=(1, 2),
    ),
    "decoupled": Scheme(
        "near-optimal devices and server, each on its own: what Theorem 1 says is optimal",
        controller("postdecision:PostDecision"),
        LEARNING_SERVER,
        fractional=False,
        signals=(0, 0),
    ),
    "priced": Scheme(
        "near-optimal like `decoupled`, coordinated by one price that the server broadcasts",
        controller("postdecision:Priced"),
        LEARNING_SERVER,
        fractional=False,
        signals=(0, 1),
    ),
    "oracle": Scheme(
        "knows the statistics, through the lower bound's price and exact tables; for reference, not an optimum",
        controller("postdecision:Oracle"),
        LEARNING_SERVER,
        fractional=False,
        preparation="use_bound",
        signals=(0, 0),
    ),
    "constant": Scheme(
        "the best fixed fraction and number of tasks per block, tuned on other seeds",
        controller("baselines:Constant"),
        controller("baselines:Steady"),
        fractional=False,
        channel_blind=True,
        preparation="tune_constant",
        signals=(0, 0),
    ),
    "binary-parametric": Scheme(
        "offloads all of a task or nothing, with Algorithms 1 and 2 of the paper",
        controller("section_vi:BinaryParametric"),
        ALGORITHM_2,
        signals=(1, 0),
        by_default=False,
    ),
    "even-parametric": Scheme(
        "Algorithms 1 and 2 of the paper, a device offloading at most the server's rate divided by K",
        controller("section_vi:EvenParametric"),
        ALGORITHM_2,
        signals=(1, 1),
        by_default=False,
    ),
    "random-fixed": Scheme(
        "offloads a random fraction; the server keeps its first rate",
        controller("baselines:Random"),
        controller("section_vi:Fixed"),
        channel_blind=True,
        signals=(0, 0),
        by_default=False,
    ),
    "qlearning-designed": Scheme(
        "Q-learning as the text describes it, with designed features and actions, and least squares",
        controller("designed:DesignedDevice"),
        controller("designed:DesignedServer"),
        fractional=False,
        signals=(1, 0),
        by_default=False,
    ),
}
REFERENCE = "constant"
"""The scheme that others are compared with: a learned policy should cost less than a tuned constant one."""
