"""The rules of one ADS stream, without a stream."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from xds_clients import ack, ask, nack, offer, snapshot

from longshore.xds.conversation import Accepted, Conversation, Ignored, Refused, Subscribed
from longshore.xds.snapshot import ResourceType

CLUSTER, LISTENER, ROUTE = ResourceType
FIRST, SECOND = offer(snapshot(1)), offer(snapshot(2))


def settled(given_offer=FIRST):
    """A conversation in which all three types are acknowledged, and the last answer of each."""
    conversation = Conversation()
    answers = {}
    for type_ in ResourceType:
        conversation.receive(ask(type_))
        [answers[type_]] = conversation.respond(given_offer)
        conversation.receive(ack(answers[type_]))
    assert conversation.respond(given_offer) == []
    return conversation, answers


def test_first_request_is_answered_and_then_held():
    """A new client gets everything of the type; once it has acknowledged there is nothing to say."""
    conversation = Conversation()

    assert conversation.receive(ask(CLUSTER)) == Subscribed(CLUSTER)
    [response] = conversation.respond(FIRST)
    assert conversation.holds(CLUSTER) is None
    assert response.version_info == FIRST[CLUSTER].version
    assert list(response.resources) == list(FIRST[CLUSTER].items.values())

    assert conversation.receive(ack(response)) == Accepted(CLUSTER, FIRST[CLUSTER])
    assert conversation.respond(FIRST) == []
    assert conversation.holds(CLUSTER) == FIRST[CLUSTER].version


def test_first_request_is_answered_even_when_the_version_is_known():
    """After a reconnect the client claims the present version, and is answered all the same."""
    conversation = Conversation()
    conversation.receive(ask(CLUSTER, version_info=FIRST[CLUSTER].version, response_nonce="7"))

    [response] = conversation.respond(FIRST)

    assert response.version_info == FIRST[CLUSTER].version


def test_new_offer_is_sent_in_order_each_after_the_other():
    """Clusters, then what depends on them: routes never overtake."""
    conversation, _ = settled()

    [clusters] = conversation.respond(SECOND)
    assert clusters.type_url == CLUSTER.url
    assert conversation.respond(SECOND) == []
    conversation.receive(ack(clusters))
    [routes] = conversation.respond(SECOND)
    assert routes.type_url == ROUTE.url
    conversation.receive(ack(routes))
    assert conversation.respond(SECOND) == []


def test_routes_wait_for_clusters_on_reconnect():
    """A client that asks for routes and clusters at once gets the clusters first."""
    conversation = Conversation()
    for type_ in (ROUTE, LISTENER, CLUSTER):
        conversation.receive(ask(type_))

    sent = []
    while responses := conversation.respond(FIRST):
        [response] = responses
        sent.append(ResourceType.of_url(response.type_url))
        conversation.receive(ack(response))

    assert sent == [CLUSTER, LISTENER, ROUTE]


def test_stale_nonce_is_ignored():
    """An answer to an older response is neither an ACK nor a NACK of the newer one."""
    conversation, answers = settled()
    [newer] = conversation.respond(SECOND)

    assert isinstance(conversation.receive(ack(answers[CLUSTER])), Ignored)
    assert isinstance(conversation.receive(nack(answers[CLUSTER])), Ignored)
    assert isinstance(conversation.receive(ask(CLUSTER, response_nonce="")), Ignored)
    assert conversation.respond(SECOND) == []
    assert conversation.receive(ack(newer)) == Accepted(CLUSTER, SECOND[CLUSTER])


def test_refused_version_is_not_sent_again():
    """A NACK carries its reason; the version rests on this stream, and another one is sent."""
    conversation, _ = settled()
    [response] = conversation.respond(SECOND)

    assert conversation.receive(nack(response, "bad pipe")) == Refused(CLUSTER, SECOND[CLUSTER], "bad pipe")
    assert conversation.respond(SECOND) == []
    assert conversation.respond(FIRST) == [], "the client still has it"
    [third] = conversation.respond(offer(snapshot(3)))
    assert third.type_url == CLUSTER.url


def test_refused_clusters_hold_back_their_routes():
    """Routes to clusters that the client refused would only be refused in their turn."""
    conversation = Conversation()
    for type_ in ResourceType:
        conversation.receive(ask(type_))
    [clusters] = conversation.respond(FIRST)
    conversation.receive(nack(clusters))

    [listeners] = conversation.respond(FIRST)
    conversation.receive(ack(listeners))

    assert listeners.type_url == LISTENER.url
    assert conversation.respond(FIRST) == []


def test_type_that_is_not_served():
    """An unknown type is answered once, with nothing; the client's ACK of that is no news."""
    conversation = Conversation()
    secrets = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"

    assert isinstance(conversation.receive(ask(secrets)), Ignored)
    [response] = conversation.respond(FIRST)
    conversation.receive(ack(response))

    assert (response.type_url, list(response.resources)) == (secrets, [])
    assert conversation.respond(FIRST) == []


def test_only_the_names_asked_for():
    """Routes are asked for by name; a change of the names is answered with what they name."""
    conversation = Conversation()
    conversation.receive(ask(ROUTE, resource_names=["others"]))
    [nothing] = conversation.respond(FIRST)
    assert list(nothing.resources) == []

    again = ack(nothing)
    again.resource_names.append("models")
    assert conversation.receive(again) == Accepted(ROUTE, FIRST[ROUTE])
    [everything] = conversation.respond(FIRST)

    assert len(everything.resources) == 1


def test_nothing_to_offer():
    """A client that is unknown waits, and is answered when there is something."""
    conversation = Conversation()
    conversation.receive(ask(CLUSTER))
    assert conversation.respond({}) == []
    assert conversation.receive(ask(CLUSTER, resource_names=["a"])) == Subscribed(CLUSTER)
    assert len(conversation.respond(FIRST)) == 1


_OFFERS = [offer(snapshot(*numbers)) for numbers in ((), (1,), (2,), (1, 2))]
_MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("offer"), st.integers(0, len(_OFFERS) - 1)),
        st.tuples(st.just("ask"), st.sampled_from(ResourceType)),
        st.tuples(st.just("ack"), st.integers(0, 30)),
        st.tuples(st.just("nack"), st.integers(0, 30)),
    ),
    max_size=40,
)


class Client:
    """Any client: it answers in any order, or not, and checks what every answer must keep to."""

    def __init__(self) -> None:
        self.conversation = Conversation()
        self.sent = []
        self.refused = set()
        self.open = {}

    def respond(self, current) -> None:
        for response in self.conversation.respond(current):
            assert response.type_url not in self.open, "one answer at a time"
            assert (response.type_url, response.version_info) not in self.refused
            assert response.nonce not in {earlier.nonce for earlier in self.sent}
            self.sent.append(response)
            self.open[response.type_url] = response

    def answer(self, response, *, accept: bool) -> None:
        event = self.conversation.receive(ack(response) if accept else nack(response))
        if self.open.get(response.type_url) is not response:
            assert isinstance(event, Ignored)
            return
        assert isinstance(event, Accepted if accept else Refused)
        del self.open[response.type_url]
        if not accept:
            self.refused.add((response.type_url, response.version_info))

    def move(self, kind: str, argument) -> None:
        if kind == "ask":
            self.conversation.receive(ask(argument))
        elif self.sent:
            self.answer(self.sent[argument % len(self.sent)], accept=kind == "ack")

    def follow(self, current) -> None:
        """From now on accept everything."""
        for type_ in ResourceType:
            self.move("ask", type_)
        self.respond(current)
        while self.open:
            self.answer(next(iter(self.open.values())), accept=True)
            self.respond(current)


@settings(max_examples=200, deadline=None)
@given(_MOVES)
def test_whatever_a_client_does(moves):
    """Nonces never repeat, nothing is sent beside an open answer or again after a refusal, and a client that starts
    to acknowledge ends up with the offer.
    """
    client = Client()
    current = _OFFERS[0]
    for kind, argument in moves:
        if kind == "offer":
            current = _OFFERS[argument]
        else:
            client.move(kind, argument)
        client.respond(current)

    final = offer(snapshot(99))
    client.follow(final)

    last = {response.type_url: response.version_info for response in client.sent}
    wanted = {type_.url: final[type_].version for type_ in ResourceType}
    assert {item for item in wanted.items() if item not in client.refused} <= set(last.items())
