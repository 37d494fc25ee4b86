"""What the sample dialogues talk about: complaints, what a doctor asks about them, what patients answer.

The generator writes dialogues with it and the offline stand-ins read them with it. All of it is made up
for this project: it has the shape of medical language and says nothing about medicine.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class Attribute:
    """One thing a doctor may ask about a complaint.

    Attributes:
        field: The clinical field an answer belongs to.
        question: How the logged doctor asks.
        about: Words that only a question about this attribute uses.
        answers: What a patient writes -> the standard term for it. The terms are the choices to offer.
    """

    field: str
    question: str
    about: tuple[str, ...]
    answers: dict[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class Complaint:
    """A chief complaint with its diagnosis and the attributes that make up the interview."""

    name: str
    diagnosis: str
    openings: tuple[str, ...]
    attributes: tuple[Attribute, ...]


COMPLAINTS = (
    Complaint(
        "diarrhea",
        "Acute Gastroenteritis",
        ("i have diarrhea since last night", "my stomach is upset and i keep running to the toilet"),
        (
            Attribute(
                "symptom nature",
                "what does the stool look like",
                ("stool",),
                {
                    "it is like water": "watery stool",
                    "kind of slimy": "mucus stool",
                    "soft but not watery": "loose stool",
                },
            ),
            Attribute(
                "symptom severity",
                "how many times a day",
                ("times", "often"),
                {
                    "two or three times": "2-3 times daily",
                    "maybe five times": "4-5 times daily",
                    "more than eight times": "over 8 times daily",
                },
            ),
            Attribute(
                "symptom trigger",
                "did you eat anything special before",
                ("eat", "food"),
                {
                    "we had seafood": "after seafood",
                    "a very spicy hotpot": "after spicy food",
                    "some leftovers from the fridge": "after leftovers",
                },
            ),
            Attribute(
                "symptom",
                "anything besides the toilet trips",
                ("besides", "also"),
                {
                    "my belly cramps too": "abdominal cramps",
                    "i threw up once": "vomiting",
                    "i feel hot": "fever",
                },
            ),
        ),
    ),
    Complaint(
        "cough",
        "Acute Bronchitis",
        ("i have been coughing for days", "this cough does not go away"),
        (
            Attribute(
                "symptom nature",
                "is there any phlegm and what colour",
                ("phlegm", "colour"),
                {
                    "nothing comes up": "dry cough",
                    "thick yellow stuff": "yellow phlegm",
                    "clear slime": "white phlegm",
                },
            ),
            Attribute(
                "symptom trigger",
                "when is the cough worst",
                ("worst", "when"),
                {
                    "mostly when i lie in bed": "worse at night",
                    "cold air sets it off": "triggered by cold air",
                    "after i run": "after exercise",
                },
            ),
            Attribute(
                "symptom severity",
                "does it keep you awake",
                ("awake", "severe"),
                {
                    "i hardly sleep": "severe cough",
                    "it is bearable": "mild cough",
                    "on and off": "intermittent cough",
                },
            ),
            Attribute(
                "symptom",
                "any other discomfort in the chest or throat",
                ("chest", "throat"),
                {
                    "it hurts when i swallow": "sore throat",
                    "there is a whistle when i breathe": "wheezing",
                    "my chest feels tight": "chest tightness",
                },
            ),
        ),
    ),
    Complaint(
        "headache",
        "Tension Headache",
        ("my head hurts", "i have had a headache all week"),
        (
            Attribute(
                "symptom location",
                "which part of the head",
                ("part", "side"),
                {
                    "around my eyes and brow": "forehead",
                    "only the left half": "left temple",
                    "down the back near the neck": "back of head",
                },
            ),
            Attribute(
                "symptom nature",
                "what does the pain feel like",
                ("feel", "kind"),
                {
                    "it pounds like a drum": "throbbing pain",
                    "like a tight band": "pressing pain",
                    "like needles": "stabbing pain",
                },
            ),
            Attribute(
                "symptom trigger",
                "what brings it on",
                ("brings", "start"),
                {
                    "after long hours at the screen": "after screen work",
                    "when i sleep badly": "after poor sleep",
                    "if i skip lunch": "after missed meals",
                },
            ),
            Attribute(
                "symptom",
                "do you notice anything along with it",
                ("notice", "along"),
                {
                    "i feel like throwing up": "nausea",
                    "light bothers me": "light sensitivity",
                    "everything spins": "dizziness",
                },
            ),
        ),
    ),
    Complaint(
        "rash",
        "Contact Dermatitis",
        ("i got a rash", "my skin is all red"),
        (
            Attribute(
                "symptom location",
                "where on the body is it",
                ("body", "where"),
                {"on both my forearms": "forearms", "mostly on my legs": "legs", "all over my face": "face"},
            ),
            Attribute(
                "symptom nature",
                "is it flat or raised",
                ("raised", "flat"),
                {
                    "little bumps": "small papules",
                    "with tiny water bubbles": "blisters",
                    "big flat red areas": "red patches",
                },
            ),
            Attribute(
                "symptom severity",
                "how bad is the itch",
                ("itch", "bad"),
                {
                    "i scratch all night": "severe itching",
                    "itches a bit": "mild itching",
                    "comes and goes": "intermittent itching",
                },
            ),
            Attribute(
                "symptom trigger",
                "did you use a new product or touch plants",
                ("product", "plants"),
                {
                    "i switched washing powder": "new detergent",
                    "worked in the garden": "plant contact",
                    "bought a new cream": "new cosmetics",
                },
            ),
        ),
    ),
    Complaint(
        "back pain",
        "Lumbar Strain",
        ("my back is killing me", "i have pain in my back"),
        (
            Attribute(
                "symptom location",
                "is it upper or lower",
                ("upper", "lower"),
                {
                    "just above the belt": "lower back",
                    "between the shoulder blades": "upper back",
                    "to the right of the spine": "right flank",
                },
            ),
            Attribute(
                "symptom trigger",
                "did it come after lifting something",
                ("lifting", "after"),
                {
                    "i carried boxes": "after lifting",
                    "sat in the car all day": "after long sitting",
                    "i slipped on ice": "after a fall",
                },
            ),
            Attribute(
                "symptom nature",
                "is the ache dull or sharp",
                ("dull", "sharp"),
                {
                    "a deep dull ache": "dull ache",
                    "like a knife when i move": "sharp pain",
                    "a burning feeling": "burning pain",
                },
            ),
            Attribute(
                "symptom",
                "does it run into the leg",
                ("leg", "run"),
                {
                    "down to my foot": "radiating leg pain",
                    "my toes tingle": "foot numbness",
                    "the knee gives way": "leg weakness",
                },
            ),
        ),
    ),
    Complaint(
        "stomach pain",
        "Gastritis",
        ("my stomach hurts", "i have stomach ache again"),
        (
            Attribute(
                "symptom location",
                "which spot hurts most",
                ("spot", "most"),
                {
                    "right under the ribs": "upper abdomen",
                    "around the navel": "mid abdomen",
                    "low on the right": "lower right abdomen",
                },
            ),
            Attribute(
                "symptom trigger",
                "is it related to meals",
                ("meals", "related"),
                {
                    "when i have not eaten": "on empty stomach",
                    "right after i eat": "after meals",
                    "whenever i am stressed": "under stress",
                },
            ),
            Attribute(
                "symptom nature",
                "does it burn or cramp",
                ("burn", "cramp"),
                {"it burns like acid": "burning", "comes in waves": "cramping", "just a heavy pressure": "fullness"},
            ),
            Attribute(
                "symptom",
                "do you bring up acid or gas",
                ("acid", "gas"),
                {
                    "sour stuff comes up": "acid reflux",
                    "i burp a lot": "belching",
                    "i am bloated": "bloating",
                },
            ),
        ),
    ),
    Complaint(
        "fever",
        "Viral Infection",
        ("i have a fever", "i feel hot and weak"),
        (
            Attribute(
                "symptom severity",
                "what was the highest temperature",
                ("temperature", "highest"),
                {"37.8 this morning": "37.8 celsius", "it was 38.5": "38.5 celsius", "over 39": "above 39 celsius"},
            ),
            Attribute(
                "symptom nature",
                "is it constant or does it come in bouts",
                ("constant", "bouts"),
                {
                    "never really drops": "continuous fever",
                    "up every evening": "evening fever",
                    "drops and comes back": "recurrent fever",
                },
            ),
            Attribute(
                "symptom",
                "any chills or aches",
                ("chills", "aches"),
                {
                    "i shiver under the blanket": "chills",
                    "every muscle is sore": "muscle ache",
                    "i sweat a lot": "sweating",
                },
            ),
            Attribute(
                "symptom trigger",
                "were you exposed to something",
                ("exposed", "contact"),
                {
                    "my son had the flu": "flu contact",
                    "got soaked in the rain": "after cold exposure",
                    "i had a shot on monday": "after vaccination",
                },
            ),
        ),
    ),
    Complaint(
        "runny nose",
        "Allergic Rhinitis",
        ("my nose runs all day", "i sneeze and my nose is running"),
        (
            Attribute(
                "symptom nature",
                "is the discharge clear or thick",
                ("discharge", "clear"),
                {
                    "it drips like water": "clear discharge",
                    "thick and green": "purulent discharge",
                    "a little blood in it": "bloody discharge",
                },
            ),
            Attribute(
                "symptom trigger",
                "does dust or pollen make it worse",
                ("dust", "pollen"),
                {
                    "when i clean the house": "dust exposure",
                    "outside in the grass": "pollen exposure",
                    "near my cat": "animal contact",
                },
            ),
            Attribute(
                "symptom severity",
                "how often do you sneeze",
                ("sneeze", "often"),
                {
                    "ten in a row": "frequent sneezing",
                    "now and then": "occasional sneezing",
                    "only after waking": "morning sneezing",
                },
            ),
            Attribute(
                "symptom",
                "are the eyes or ears affected",
                ("eyes", "ears"),
                {
                    "my eyes itch": "itchy eyes",
                    "ears feel blocked": "ear fullness",
                    "i cannot smell": "loss of smell",
                },
            ),
        ),
    ),
    Complaint(
        "insomnia",
        "Sleep Disorder",
        ("i cannot sleep", "i have not slept well for weeks"),
        (
            Attribute(
                "symptom nature",
                "is it hard to fall asleep or to stay asleep",
                ("fall", "stay"),
                {
                    "i lie there for hours": "difficulty falling asleep",
                    "i wake at three": "early waking",
                    "i wake up ten times": "frequent waking",
                },
            ),
            Attribute(
                "symptom severity",
                "how many hours do you get",
                ("hours", "get"),
                {"about three": "3 hours a night", "four or five": "4-5 hours a night", "maybe six": "6 hours a night"},
            ),
            Attribute(
                "symptom trigger",
                "is anything on your mind",
                ("mind", "stress"),
                {
                    "exams are coming": "exam stress",
                    "trouble at work": "work stress",
                    "i drink coffee late": "late caffeine",
                },
            ),
            Attribute(
                "symptom",
                "how are you during the day",
                ("day", "daytime"),
                {
                    "i nod off at my desk": "daytime sleepiness",
                    "i snap at everyone": "irritability",
                    "i forget things": "poor concentration",
                },
            ),
        ),
    ),
    Complaint(
        "toothache",
        "Pulpitis",
        ("my tooth hurts", "i have a terrible toothache"),
        (
            Attribute(
                "symptom location",
                "front or back tooth",
                ("front", "tooth"),
                {
                    "one of the big ones behind": "molar",
                    "a top one in the middle": "upper incisor",
                    "the one that is growing at the end": "wisdom tooth",
                },
            ),
            Attribute(
                "symptom trigger",
                "do cold, heat or chewing set it off",
                ("cold", "heat", "chewing"),
                {"ice water kills me": "cold drinks", "hot soup": "hot food", "when i bite": "biting"},
            ),
            Attribute(
                "symptom severity",
                "how strong is it at its peak",
                ("strong", "peak"),
                {
                    "i could cry": "severe toothache",
                    "i can live with it": "mild toothache",
                    "so so": "moderate toothache",
                },
            ),
            Attribute(
                "symptom",
                "is the gum or cheek swollen",
                ("gum", "cheek"),
                {
                    "my cheek is big": "cheek swelling",
                    "it bleeds when i brush": "gum bleeding",
                    "there is pus": "gum abscess",
                },
            ),
        ),
    ),
    Complaint(
        "sore eyes",
        "Conjunctivitis",
        ("my eyes are red", "something is wrong with my eye"),
        (
            Attribute(
                "symptom location",
                "one eye or both",
                ("one", "both"),
                {"just the left": "left eye", "just the right": "right eye", "the two of them": "both eyes"},
            ),
            Attribute(
                "symptom nature",
                "is there any secretion",
                ("secretion",),
                {
                    "they water a lot": "watery secretion",
                    "sticky and yellow": "purulent secretion",
                    "no it is just dry": "dryness",
                },
            ),
            Attribute(
                "symptom",
                "does your vision change or does it sting",
                ("vision", "sting"),
                {
                    "everything is hazy": "blurred vision",
                    "like sand in it": "foreign body sensation",
                    "light hurts": "photophobia",
                },
            ),
            Attribute(
                "symptom trigger",
                "do you wear lenses or swim",
                ("lenses", "swim"),
                {
                    "i slept with my lenses": "contact lens wear",
                    "i was at the pool": "swimming",
                    "my daughter has it too": "family contact",
                },
            ),
        ),
    ),
    Complaint(
        "joint pain",
        "Arthritis",
        ("my joints ache", "i have pain in a joint"),
        (
            Attribute(
                "symptom location",
                "which joint is it",
                ("joint", "which"),
                {"both knees": "knees", "my big toe": "big toe", "the fingers": "finger joints"},
            ),
            Attribute(
                "symptom nature",
                "is it swollen, stiff or warm",
                ("swollen", "stiff", "warm"),
                {
                    "puffy and tight": "joint swelling",
                    "cannot bend it when i get up": "morning stiffness",
                    "hot to the touch": "local warmth",
                },
            ),
            Attribute(
                "symptom trigger",
                "what makes it flare up",
                ("flare", "makes"),
                {
                    "climbing stairs": "stair climbing",
                    "when it rains": "damp weather",
                    "after beer and meat": "rich food",
                },
            ),
            Attribute(
                "symptom severity",
                "can you still walk and grip",
                ("walk", "grip"),
                {
                    "i limp": "limited walking",
                    "i cannot move it": "unable to move",
                    "only a little stiff": "slight limitation",
                },
            ),
        ),
    ),
)

# What doctors ask last and what is never information (spec section 3: no medication, no allergies).
CLOSING_QUESTIONS = (
    "any drug allergies",
    "are there any medicines you are allergic to, any drug allergies",
    "one last thing, do you have drug allergies",
)
CLOSING_ANSWERS = ("no allergies", "none that i know", "only penicillin", "nope", "no, nothing")
MEDICATION_TALK = (
    "i took some ibuprofen",
    "i already tried a herbal tea",
    "the pills from last time did not help",
    "i have blood pressure medicine at home",
)
GREETINGS = (
    "hello, this is the online clinic",
    "hi, how can i help you today",
    "welcome, please describe your problem",
)
PATIENT_CHAT = ("ok", "thank you", "one moment please", "sorry, i was away", "hello are you there")
DOCTOR_CHAT = ("ok", "sorry, the network was down just now", "i see", "please wait a moment")
