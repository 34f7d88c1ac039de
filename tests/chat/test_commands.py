"""Every command does what its help says, refuses what it cannot do, and leaves the chat as it was then."""

from __future__ import annotations

import json
import os

import pytest

from chat.chatting import FailingArchive, make_archive, make_model, make_session, run, said
from llm_local.chat.command_table import BUILT_IN, command_table, commands_markdown
from llm_local.chat.commands import Call, Command, CommandContext, CommandTable, Question
from llm_local.chat.compare import Comparison
from llm_local.chat.completion import complete
from llm_local.chat.models import ToolOffer
from llm_local.chat.outcomes import Ask, Cleared, Compared, Copied, Edit, Leave, Reply, Said, Shown, Text
from llm_local.conversations.transcript import from_json
from llm_local.errors import ConversationNotFound, InvalidRequest, LocalLLMError, ModelNotFound, StorageError


class Chat:
    """A session and its commands, in a folder of its own."""

    def __init__(self, session):
        self.session = session
        self.context = CommandContext(session, command_table(), lambda: ["starter", "org/name"])

    def do(self, line):
        """What a line comes to; answers are read to their end."""
        outcome = self.context.table.parse(line)
        outcome = (
            Reply(self.session.ask(outcome.text))
            if isinstance(outcome, Question)
            else outcome.run(self.context)
        )
        if isinstance(outcome, Reply):
            run(outcome.reply)
        return outcome

    def candidates(self, line):
        return [one.text for one in complete(line, self.context)]


@pytest.fixture
def chat(tmp_path, monkeypatch):
    """A chat of one turn; two more answers are ready."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    session = make_session(
        "One.\n```python\nx = 1\n```\n",
        "Two.",
        "Three.",
        archive=make_archive(tmp_path),
        open_model=lambda ref: {"other": make_model("Other.", "Other.", ref="other")}[ref],
    )
    run(session.ask("first question"))
    return Chat(session)


NAMED = (
    "help ? exit quit bye reset clear history system set show models switch save load list search export regen edit "
    "undo read retry stats compare tools new copy"
).split()


def test_every_command_that_was_promised_is_there():
    assert set(NAMED) <= set(command_table().names)


@pytest.mark.parametrize("command", BUILT_IN, ids=lambda one: one.name)
def test_every_command_is_described_and_can_be_asked_about(chat, command):
    assert command.help[0].isupper()
    assert command.help.endswith(".")
    for name in (command.name, *command.aliases):
        assert chat.do(f"/help {name}").lines[:2] == (command.shown, command.help)
    shown = command.shown.replace("|", "\\|")
    assert f"| `{shown}` |" in commands_markdown()


def test_help_lists_all(chat):
    outcome = chat.do("/?")
    assert isinstance(outcome, Shown)
    assert len(outcome.rows) == len(BUILT_IN)
    assert any("//" in note for note in outcome.notes)


def test_what_is_a_command_and_what_is_a_question():
    table = command_table()
    assert table.parse("hello") == Question("hello")
    assert table.parse("//help me") == Question("/help me")
    assert table.parse(" /help") == Question(" /help")
    call = table.parse("/SYSTEM  Be brief.\nAnd kind. ")
    assert isinstance(call, Call)
    assert (call.command.name, call.arguments) == ("system", "Be brief.\nAnd kind.")
    assert table.parse("/read\tfile").arguments == "file"


@pytest.mark.parametrize(
    ("line", "nearest"),
    [("/hlep", "/help"), ("/swich x", "/switch"), ("/usr/bin/x?", ""), ("/", ""), ("/ help", "")],
)
def test_an_unknown_command_names_the_nearest_and_reaches_no_model(chat, line, nearest):
    before = said(chat.session)
    with pytest.raises(InvalidRequest) as caught:
        chat.do(line)
    assert nearest in caught.value.hint
    assert "//" in caught.value.hint
    assert said(chat.session) == before


def test_two_commands_of_one_name_are_a_mistake():
    one = Command("x", "", "Help.", lambda context, text: Leave())
    with pytest.raises(ValueError, match="two commands are called x"):
        CommandTable([one, Command("y", "", "Help.", one.run, ("x",))])


@pytest.mark.parametrize("line", ["/quit", "/exit", "/bye", "/BYE now"])
def test_leaving(chat, line):
    assert chat.do(line) == Leave()


@pytest.mark.parametrize(("line", "kind"), [("/new", Said), ("/reset", Said), ("/clear", Cleared)])
def test_beginning_anew_tells_how_to_come_back(chat, line, kind):
    old = chat.session.conversation.id
    outcome = chat.do(line)
    assert isinstance(outcome, kind)
    assert old[:8] in outcome.lines[0]
    assert said(chat.session) == []
    assert "2 messages" in chat.do(f"/load {old[:8]}").lines[0]
    chat.session.new()
    assert len(chat.do(line).lines) == 1


def test_history(chat):
    run(chat.session.ask("second\nquestion"))
    assert len(chat.do("/history").rows) == 4
    assert chat.do("/history 2").rows == (("3", "user", "second question"), ("4", "assistant", "Two."))
    for wrong in ("x", "0", "-1", "1.5", "²", "9" * 30):
        with pytest.raises(InvalidRequest):
            chat.do(f"/history {wrong}")


def test_statistics(chat):
    outcome = chat.do("/stats")
    rows = {row[0]: row[1] for row in outcome.rows}
    assert rows["answer tokens"] == str(chat.session.completions[0].usage.completion_tokens)
    assert str(chat.session.context_used) in outcome.notes[0]
    assert isinstance(Chat(make_session()).do("/stats"), Said)


def test_copy(chat):
    assert chat.do("/copy") == Copied("One.\n```python\nx = 1\n```\n", "the last answer")
    assert chat.do("/copy code") == Copied("x = 1\n", "the last code block")
    chat.do("second")
    for wrong in ("/copy code", "/copy everything"):
        with pytest.raises(InvalidRequest):
            chat.do(wrong)
    chat.do("/new")
    with pytest.raises(InvalidRequest, match="no answer"):
        chat.do("/copy")


@pytest.mark.parametrize("line", ["/regen", "/retry"])
def test_another_answer(chat, line):
    assert isinstance(chat.do(line), Reply)
    assert said(chat.session) == [("user", "first question"), ("assistant", "Two.")]


def test_editing(chat):
    outcome = chat.do("/edit")
    assert isinstance(outcome, Edit)
    assert outcome.text == "first question"
    run(outcome.submit("better question").reply)
    assert said(chat.session) == [("user", "better question"), ("assistant", "Two.")]
    chat.do("/edit best question")
    assert said(chat.session) == [("user", "best question"), ("assistant", "Three.")]


def test_undo_and_continue(chat):
    with pytest.raises(InvalidRequest, match="complete"):
        chat.do("/continue")
    assert "first question" in chat.do("/undo").lines[0]
    for line in ("/undo", "/edit", "/regen", "/edit x", "/continue"):
        with pytest.raises(InvalidRequest):
            chat.do(line)


def test_a_file_goes_into_the_next_question_and_only_there(chat, tmp_path):
    with open("notes.md", "w") as file:
        file.write("Tom is a cat.\n```\ncode\n```")
    assert "notes.md" in chat.do("/read notes.md").lines[0]
    chat.do("/read ./notes.md")
    chat.do("Who is Tom?")
    question = chat.session.messages[-2].content
    assert question.count("notes.md:\n````\nTom is a cat.\n```\ncode\n```\n````\n") == 2
    assert question.endswith("\nWho is Tom?")
    chat.do("And?")
    assert chat.session.messages[-2].content == "And?"
    chat.do("/read notes.md")
    chat.do("/read off")
    assert chat.session.attachments.names == ()
    assert "No file" in chat.do("/read").lines[0]


def test_a_file_that_is_refused(chat):
    os.mkdir("folder")
    os.mkfifo("pipe")
    for name, data in (("large", b"x" * (5 << 20)), ("latin", b"caf\xe9"), ("zero", b"a\0b")):
        with open(name, "wb") as file:
            file.write(data)
    for name in (
        "folder",
        "pipe",
        "large",
        "latin",
        "zero",
        "missing",
        "a\0b",
        "/dev/zero",
        "~nobody-at-all/x",
    ):
        with pytest.raises(LocalLLMError):
            chat.do(f"/read {name}")
    assert chat.session.attachments.names == ()


def test_a_refused_question_keeps_its_files(chat):
    with open("notes.md", "w") as file:
        file.write("x" * 9000)
    chat.do("/read notes.md")
    with pytest.raises(LocalLLMError):
        chat.do("Who is Tom?")
    assert chat.session.attachments.names == ("notes.md",)


def test_the_system_prompt(chat):
    assert isinstance(chat.do("/system"), Said)
    chat.do("/system Be brief.\nAnd kind.")
    assert chat.do("/system") == chat.do("/show system") == Text("Be brief.\nAnd kind.", is_markdown=False)
    chat.do("/system off")
    assert chat.session.system_prompt is None


def test_options(chat):
    assert chat.do("/set temperature 0.2") == Said(("temperature = 0.2",))
    assert chat.do("/set top_k=3") == Said(("top_k = 3",))
    assert chat.do("/set temp").lines[0] == "temperature = 0.2"
    table = chat.do("/set")
    assert table == chat.do("/show parameters")
    assert ("temperature", "0.2", "chosen here", "a number from 0 to 10") in table.rows
    chat.do("/set temperature default")
    assert "temperature" not in chat.session.chosen
    for wrong in ("temperature 99", "nothing 1", "top_k much", "stop [1]"):
        with pytest.raises(InvalidRequest):
            chat.do(f"/set {wrong}")


def test_a_format_by_word_and_by_file(chat, monkeypatch):
    # what the model can keep is checked elsewhere; here it is about what is read
    monkeypatch.setattr("llm_local.chat.session.check_choices", lambda choices, model: None)
    with open("schema.json", "w") as file:
        json.dump({"type": "object"}, file)
    for name, text in (("list.json", "[1]"), ("broken.json", "{"), ("deep.json", "[" * 100_000)):
        with open(name, "w") as file:
            file.write(text)
    assert chat.do("/set format json") == Said(("format = json",))
    assert chat.do("/set format schema.json") == Said(("format = a JSON schema",))
    assert chat.do('/set format {"type": "object"}') == Said(("format = a JSON schema",))
    assert chat.session.options.constraint.kind == "json_schema"
    for wrong in ("list.json", "broken.json", "deep.json", "missing.json", "{]"):
        with pytest.raises(LocalLLMError):
            chat.do(f"/set format {wrong}")
    assert chat.do("/set format off") == Said(("format = off",))


def test_show(chat):
    info = dict(chat.do("/show").rows)
    assert info["model"] == "scripted"
    assert info["conversation"].startswith(chat.session.conversation.id[:8])
    assert chat.do("/show template").text == chat.session.model.generator.template_source
    prompt = chat.do("/show prompt")
    assert prompt.text.startswith("<|im_start|>user\nfirst question")
    assert prompt.text.endswith(f"[{len(chat.session.prepared.prompt_ids)} tokens]")
    assert not prompt.is_markdown
    with pytest.raises(InvalidRequest, match="cannot be shown"):
        chat.do("/show nothing")
    assert isinstance(Chat(make_session()).do("/show prompt"), Said)


class Tools:
    offers = (ToolOffer("add", "Add numbers.", "a file"), ToolOffer("look", "Look.", "a server"))


def test_tools(chat):
    assert "no tools" in chat.do("/tools on").lines[0]
    chat.session.tools = Tools()
    assert [row[:2] for row in chat.do("/tools").rows] == [("add", "off"), ("look", "off")]
    assert [row[1] for row in chat.do("/tools on").rows] == ["on", "on"]
    assert [row[1] for row in chat.do("/tools add").rows] == ["off", "on"]
    with pytest.raises(InvalidRequest, match="no tool 'swim'"):
        chat.do("/tools swim")
    assert chat.session.tools_on == {"look"}
    assert [row[1] for row in chat.do("/tools off").rows] == ["off", "off"]


def test_models_and_switch(chat):
    assert [row[1] for row in chat.do("/models").rows] == ["starter"]
    assert chat.do("/models nothing").rows == ()
    assert chat.do("/switch other") == Said(("Now other answers.",))
    with pytest.raises(InvalidRequest, match="Which model"):
        chat.do("/switch")

    def unknown(ref):
        raise ModelNotFound("No such model.")

    chat.session._slot.open_model = unknown
    with pytest.raises(ModelNotFound):
        chat.do("/switch nothing")
    assert chat.session.model.info.ref == "other"


def test_compare(chat):
    with pytest.raises(InvalidRequest, match="no comparison"):
        chat.do("/compare --save page.md")
    outcome = chat.do("/compare other")
    assert isinstance(outcome, Compared)
    list(outcome.comparison)
    assert [(row.label, row.completion.text) for row in outcome.comparison.rows] == [
        ("scripted", "Two."),
        ("other", "Other."),
    ]
    chat.do("/compare --save page.md")
    with open("page.md") as file:
        assert file.read() == outcome.comparison.markdown()
    for wrong in (
        "/compare",
        "/compare temperature=99",
        "/compare other,top_k",
        "/compare --save",
        "/compare other,=1",
    ):
        with pytest.raises(InvalidRequest):
            chat.do(wrong)
    assert said(chat.session)[-1] == ("assistant", "One.\n```python\nx = 1\n```\n")


def test_a_comparison_goes_on_when_one_fails_and_stops_when_it_is_cancelled(chat):
    def open_model(ref):
        raise ModelNotFound(f"There is no {ref} | here.")

    chat.session._slot.open_model = open_model
    comparison = chat.do("/compare lost scripted").comparison
    list(comparison)
    assert [row.error for row in comparison.rows] == ["There is no lost | here.", ""]
    assert "There is no lost \\| here. |" in comparison.markdown()
    comparison = chat.do("/compare scripted scripted").comparison
    for event in comparison:
        if type(event).__name__ == "Delta":
            comparison.cancel()
    assert [row.completion.finish_reason for row in comparison.rows] == ["cancelled"]
    assert comparison.table().notes == ("1 of 2 were not asked any more.",)
    assert isinstance(comparison, Comparison)


def test_save_and_load(chat):
    chat.do("/system S")
    assert chat.do("/save chat.json") == Said(("The conversation is in chat.json.",))
    with open("chat.json", "rb") as file:
        transcript = from_json(file.read())
    assert [one.message for one in transcript.messages] == list(chat.session.messages)
    entries, old = chat.session.entries, chat.session.conversation.id
    chat.do("/new")
    assert "3 messages" in chat.do("/load chat.json").lines[0]
    assert chat.session.entries == entries
    assert chat.session.conversation.id != old
    chat.do("go on")
    assert len(chat.session.archive.messages(chat.session.conversation.id)) == 5
    assert "first question" in chat.do("/load " + old[:8]).lines[0]
    assert chat.session.conversation.id == old


def test_what_cannot_be_loaded_leaves_the_conversation(chat):
    os.mkdir("folder")
    for name, data in (
        ("latin.json", b'{"a": "caf\xe9"}'),
        ("large.json", b"[" * (5 << 20)),
        ("list.json", b"[]"),
    ):
        with open(name, "wb") as file:
            file.write(data)
    before = chat.session.entries
    for name in ("latin.json", "large.json", "list.json", "folder", "./folder", "missing.json", "a\0b"):
        with pytest.raises(LocalLLMError):
            chat.do(f"/load {name}")
    with pytest.raises(ConversationNotFound):
        chat.do("/load abcdef")
    with pytest.raises(ConversationNotFound, match=r"no file 'notes' here, and no conversation.*/list"):
        chat.do("/load notes")
    with pytest.raises(InvalidRequest, match="What"):
        chat.do("/load")
    assert chat.session.entries == before


@pytest.mark.parametrize("command", ["/save", "/export"])
def test_a_file_that_is_there_is_asked_about(chat, command):
    with open("mine", "w") as file:
        file.write("precious")
    outcome = chat.do(f"{command} mine")
    assert isinstance(outcome, Ask)
    assert "mine" in outcome.question
    with open("mine") as file:
        assert file.read() == "precious"
    outcome.on_yes()
    with open("mine") as file:
        assert "One." in file.read()


@pytest.mark.parametrize("command", ["/save", "/export"])
def test_links_folders_and_impossible_places_are_refused(chat, command):
    os.mkdir("folder")
    with open("mine", "w") as file:
        file.write("precious")
    os.symlink("mine", "link")
    os.symlink("nowhere", "dangling")
    for name in ("folder", "link", "dangling", "missing/x", "a\0b", "/dev/null", "x" * 300):
        with pytest.raises(LocalLLMError):
            chat.do(f"{command} {name}")
    with open("mine") as file:
        assert file.read() == "precious"
    assert not os.path.exists("nowhere")


def test_export_without_a_name_makes_one(chat):
    assert ".md." in chat.do("/export").lines[0]
    (made,) = os.listdir(".")
    with open(made) as file:
        page = file.read()
    assert "first question" in page
    assert "One." in page


def test_the_archive_lists_and_finds(chat):
    first = chat.session.conversation.id
    chat.do("/new")
    chat.do("about zebras")
    rows = chat.do("/list").rows
    assert [(row[0], row[1]) for row in rows] == [("*", chat.session.conversation.id[:8]), ("", first[:8])]
    assert [row[0] for row in chat.do("/search zebra").rows] == [chat.session.conversation.id[:8]]
    assert chat.do("/search giraffe").notes == ("Nothing was found.",)
    with pytest.raises(InvalidRequest):
        chat.do("/search")
    chat.do("/rename Stripes")
    assert chat.session.conversation.title == "Stripes"
    with pytest.raises(InvalidRequest):
        chat.do("/rename")
    chat.do("/fork")
    assert len(chat.do("/list").rows) == 3


def test_without_an_archive_these_commands_say_so():
    chat = Chat(make_session("One."))
    chat.do("hello")
    for line in ("/list", "/search x", "/fork", "/rename x", "/load abcd"):
        with pytest.raises(InvalidRequest, match="Nothing is stored"):
            chat.do(line)


def test_completion(chat):
    with open("notes.md", "w") as file:
        file.write("x")
    os.mkdir("notebooks")
    with open(".hidden", "w") as file:
        file.write("x")
    chat.session.tools = Tools()
    assert chat.candidates("/he") == ["/help"]
    assert {f"/{name}" for name in NAMED} <= set(chat.candidates("/"))
    assert chat.candidates("/help sw") == ["switch"]
    assert chat.candidates("/switch o") == ["org/name"]
    assert chat.candidates("/compare starter o") == ["org/name"]
    assert chat.candidates("/read n") == ["notebooks/", "notes.md"]
    assert chat.candidates("/read .h") == [".hidden"]
    assert chat.candidates("/read notebooks/") == []
    assert chat.candidates("/read /no/such/folder/") == []
    assert chat.candidates("/set temp") == ["temperature"]
    assert chat.candidates("/set think o") == ["on", "off"]
    assert chat.candidates("/set format n") == ["notebooks/", "notes.md"]
    assert chat.candidates("/tools l") == ["look"]
    assert chat.candidates("/show p") == ["parameters", "prompt"]
    assert chat.candidates("/load " + chat.session.conversation.id[:3]) == [chat.session.conversation.id[:8]]
    for line in ("hello", "//he", " /he", "/nothing x", "", "/set\n"):
        assert chat.candidates(line) == []
    replaced = complete("/read notebooks/../no", chat.context)[0]
    assert (replaced.text, replaced.replaces) == ("notebooks/", 2)


def test_what_is_kept_of_a_conversation_that_could_not_be_saved_is_not_called_all_of_it(tmp_path):
    archive = FailingArchive(make_archive(tmp_path))
    chat = Chat(make_session("One.", "Two.", "Three.", archive=archive))
    chat.do("a")
    archive.full = True
    chat.do("b")
    with pytest.raises(StorageError):
        chat.do("/new")
    assert (
        chat.do("/new").lines[0].startswith("Only what was saved of the conversation so far is kept: /load ")
    )
    archive.full = False
    chat.do("c")
    assert chat.do("/clear").lines[0].startswith("The conversation so far is kept: /load ")
